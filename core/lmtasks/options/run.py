"""Settings of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmtasks.errors import UsageError, option
from lmtasks.options.base import INT_LIMIT
from lmtasks.options.groups import DataOptions, FewshotOptions, GenerationOptions, InferenceOptions, PromptOptions


@dataclass(frozen=True, kw_only=True)
class RunOptions(DataOptions, PromptOptions, FewshotOptions, GenerationOptions, InferenceOptions):
    """The settings of a run; `None` leaves a setting to the task."""

    metrics: tuple[str, ...] | None = None
    loglikelihood: bool = False
    """Measure the log-likelihood of the references too."""
    seed: int = 0
    """Seed of sampling and of the few-shot draw."""
    adapter: str | Path | None = None
    """Folder or hub id of a LoRA adapter; "none": not even the one that is bundled with the task."""
    output_dir: str | Path = "runs"
    """The folder that holds run folders."""

    def __post_init__(self) -> None:
        """Check all settings.

        Raises:
            UsageError: names the setting and what is expected.
        """
        super().__post_init__()
        self._check_names("metrics")
        self._check_counts(seed=-INT_LIMIT)
        self._check_paths("adapter", "output_dir")
        if self.output_dir is None:
            raise UsageError(f"{option('output_dir')} must be a name or a path, not None")
