"""Settings of a scoring without a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lmtasks.errors import UsageError, option
from lmtasks.options.groups import DataOptions

RESAMPLES = 1000
"""Resamples of the bootstrap."""


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(DataOptions):
    """The settings of a scoring; `None` leaves a setting to the task or to the run.

    `columns` may name the column of the outputs as "prediction".
    """

    predictions: str | Path | None = None
    """Outputs made elsewhere: JSONL, CSV, TSV or Parquet with a column "id", or any other file with one a line."""
    references: str | None = None
    """The data's column with the references, instead of all columns that are known."""
    metrics: tuple[str, ...] | None = None
    resamples: int = RESAMPLES
    """Resamples of the bootstrap for the intervals; 0: no intervals."""
    seed: int = 0
    """Seed of the bootstrap."""
    output_dir: str | Path | None = None
    """Write a run folder for the outputs in this folder, to be compared and reported."""

    def __post_init__(self) -> None:
        """Check all settings.

        Raises:
            UsageError: names the setting and what is expected.
        """
        super().__post_init__()
        self._check_names("metrics")
        self._check_counts(resamples=0, seed=0)
        self._check_paths("predictions", "output_dir")
        if self.references is not None:
            if "references" in self.columns:
                raise UsageError("the column of the references is named twice")
            self._convert("columns", {**self.columns, "references": self.references})
        if self.resamples == 1:
            raise UsageError(f"{option('resamples')} must be 0 (no intervals) or at least 2, not 1")
