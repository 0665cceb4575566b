"""Groups of settings that runs, scorings and trainings share; `None` leaves a setting to the task or the data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lmtasks.errors import UsageError, option
from lmtasks.options.base import Options, check_chat_template, check_language
from lmtasks.task import SamplingParams

Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantize = Literal["none", "int8"]
BackendName = Literal["auto", "native", "hf-generate"]
OnOverlong = Literal["error", "skip", "truncate"]
_SAMPLING_OPTION = re.compile(r"\b(max_new_tokens|temperature|top_p|top_k|repetition_penalty)\b")


@dataclass(frozen=True, kw_only=True)
class DataOptions(Options):
    """Which examples are read."""

    data: str | Path | None = None
    """A named set of the task, a JSONL, CSV, TSV or Parquet file, or hub:ID[@REVISION][#CONFIG]."""
    split: str | None = None
    limit: int | None = None
    """Use only the first examples, this many."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field to column, where the data uses other names than the task knows."""
    language: str | None = None
    """Language of the references as a BCP 47 tag; takes precedence over data and task."""

    def __post_init__(self) -> None:
        """Check the settings of this group.

        Raises:
            UsageError: names the setting and what is expected.
        """
        super().__post_init__()
        self._check_counts(limit=1)
        self._check_paths("data")
        check_language(self.language)


@dataclass(frozen=True, kw_only=True)
class PromptOptions(Options):
    """How an example is put to the model."""

    prompt: str | None = None
    """Name of one of the task's prompts."""
    parameters: Mapping[str, object] = field(default_factory=dict)
    """Values of the task's parameters by name; as text, or of the type that the task declares."""
    chat_template_kwargs: Mapping[str, object] = field(default_factory=dict)
    """Variables of the model's chat template, such as {"enable_thinking": True}; thinking is off by default."""
    chat_template_date: str | None = None
    """Date that the chat template uses as today, such as "2026-11-28"; None: the date that the adapter was trained
    with, the date of the run or training that is resumed, or today."""
    on_overlong: OnOverlong = "error"
    """What to do with an example that is too long for the model."""

    def __post_init__(self) -> None:
        """Check the settings of this group.

        Raises:
            UsageError: names the setting and what is expected.
        """
        super().__post_init__()
        self._check_choices(on_overlong=OnOverlong)
        check_chat_template(self.chat_template_kwargs, self.chat_template_date)


@dataclass(frozen=True, kw_only=True)
class FewshotOptions(Options):
    """Which solved examples the prompt shows."""

    num_fewshot: int = 0
    """Number of examples with their answers in the prompt."""
    fewshot_data: str | Path | None = None
    """Data to draw them from, as in `data`; None: another split of the data, or of the task's demo."""

    def __post_init__(self) -> None:
        """Check the settings of this group.

        Raises:
            UsageError: names the setting and what is expected.
        """
        super().__post_init__()
        self._check_counts(num_fewshot=0)
        self._check_paths("fewshot_data")
        if self.fewshot_data is not None and not self.num_fewshot:
            raise UsageError(
                f"{option('fewshot_data')} needs {option('num_fewshot')}: how many of its examples should prompts show?"
            )


@dataclass(frozen=True, kw_only=True)
class GenerationOptions(Options):
    """How completions are generated; `None` leaves a setting to the task."""

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    stop: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check the settings of this group.

        Raises:
            UsageError: names the setting and what is expected.
        """
        super().__post_init__()
        self._check_names("stop")
        for name in ("temperature", "top_p", "repetition_penalty"):
            if (number := getattr(self, name)) is not None:
                if not isinstance(number, (int, float)):
                    raise UsageError(f"{option(name)} must be a number, not {number!r}")
                self._convert(name, float(number))

    def generation(self, task_default: SamplingParams) -> SamplingParams:
        """Return the task's generation settings, with those that these options state.

        Raises:
            UsageError: a value is out of range, or contradicts another.
        """
        stated = {
            name: getattr(self, name)
            for name in ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "stop")
            if getattr(self, name) is not None
        }
        if self.temperature == 0:
            # Greedy decoding was asked for: the task's own sampling settings do not count.
            stated = {"top_p": 1.0, "top_k": 0, **stated}
        try:
            return replace(task_default, **stated)
        except ValueError as error:
            raise UsageError(_SAMPLING_OPTION.sub(lambda name: option(name[0]), str(error))) from error


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """How a model is loaded."""

    device: Device = "auto"
    dtype: Dtype = "auto"
    trust_remote_code: bool = False
    """Run code that comes with the model."""

    def __post_init__(self) -> None:
        """Check the settings of this group.

        Raises:
            UsageError: names the setting and what is expected.
        """
        super().__post_init__()
        self._check_choices(device=Device, dtype=Dtype)
        self._check_flags("trust_remote_code")


@dataclass(frozen=True, kw_only=True)
class InferenceOptions(ModelOptions):
    """How a model is loaded to generate."""

    backend: BackendName = "auto"
    """Backend that runs the weights: the native engine or `generate` of transformers; "auto": native where the
    architecture passes the probe, else hf-generate, with a warning."""
    quantize: Quantize = "none"
    """"int8": quantize weights and activations of the linear layers to 8 bits, for a CPU that does not compute in
    bfloat16; the loss is measured and reported."""
    kv_cache_gib: float = 1.0
    """Cap of the KV cache, GiB; weights and activations come on top."""
    batch_size: int | None = None
    """Sequences that are generated at once; None: 64, or as many as the KV cache holds."""

    def __post_init__(self) -> None:
        """Check the settings of this group.

        Raises:
            UsageError: names the setting and what is expected.
        """
        super().__post_init__()
        self._check_choices(backend=BackendName, quantize=Quantize)
        self._check_counts(batch_size=1)
        self._check_number("kv_cache_gib", 0, above=True)
