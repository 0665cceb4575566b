"""What can be asked of a run, from the command line and from Python."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import date
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, TypeVar, get_args

from lmtasks.errors import UsageError, option, unknown_name
from lmtasks.languages import states_language
from lmtasks.models.info import Device, Dtype, Quantize
from lmtasks.prompts import OnOverlong
from lmtasks.prompts.chat_template import THINKING_OFF
from lmtasks.task import Generation, as_tuple

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LIMIT = 2**63
"""Of whole numbers: what they are below fits 64 bits, as a record of a run and most libraries need it."""
Options = TypeVar("Options", bound="DataclassInstance")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The settings of a run; None leaves a thing to the task."""

    data: str | Path | None = None
    """A named set of the task, a JSONL, CSV, TSV or Parquet file, or hub:ID[@REVISION][#CONFIG]."""
    split: str | None = None
    limit: int | None = None
    """Take only the first examples, this many."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field to column, where the data uses other names than the task knows."""
    language: str | None = None
    """Of the references, over what data and task say."""
    prompt: str | None = None
    """One of the task's prompts, by name."""
    parameters: Mapping[str, object] = field(default_factory=dict)
    """Settings of the task, by name; as text, or of the type that the task gives them."""
    chat_template_kwargs: Mapping[str, object] = field(default_factory=dict)
    """Variables of the model's chat template, such as {"enable_thinking": True}; thinking is off by default."""
    chat_template_date: str | None = None
    """What a chat template that tells the date takes for today, as 2026-11-28; None: the adapter's date, the date of
    the run that is resumed, or today."""
    metrics: tuple[str, ...] | None = None
    loglikelihood: bool = False
    """Measure how likely the model finds the references too."""
    num_fewshot: int = 0
    """How many examples with their answer the prompt shows."""
    fewshot_data: str | Path | None = None
    """Where to draw them from, as in `data`."""
    on_overlong: OnOverlong = "error"
    """What to do with an example whose prompt is too long for the model."""
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    stop: tuple[str, ...] | None = None
    seed: int = 0
    """Of the few-shot draw and of sampling."""
    batch_size: int | None = None
    """Prompts at once; None: 64, or as many as the memory for keys and values allows."""
    device: Device = "auto"
    dtype: Dtype = "auto"
    trust_remote_code: bool = False
    quantize: Quantize = "none"
    """"int8": round weights and activations of the linear layers to 8 bits, for a CPU that does not
    compute in bfloat16; nearly the same text."""
    memory: float = 1.0
    """GiB for the keys and values of sequences under way; weights and all else come on top."""
    adapter: str | Path | None = None
    """A folder or hub id of a LoRA adapter; "none": not even one that the task brings."""
    output_dir: str | Path = "runs"
    """The folder that holds run folders."""

    def __post_init__(self) -> None:
        """Refuse what no run can do.

        Raises:
            UsageError: names the setting and what is expected.
        """
        # What Python callers naturally pass is taken for what is meant.
        if self.metrics is not None:
            object.__setattr__(self, "metrics", as_tuple(self.metrics))
        if self.stop is not None:
            object.__setattr__(self, "stop", as_tuple(self.stop))
        for name in ("temperature", "top_p", "repetition_penalty"):
            if (number := getattr(self, name)) is not None:
                if not isinstance(number, (int, float)):
                    raise UsageError(f"{option(name)} must be a number, not {number!r}")
                object.__setattr__(self, name, float(number))
        check_counts(self, limit=1, batch_size=1, num_fewshot=0, seed=-LIMIT)
        check_paths(self, "data", "fewshot_data", "adapter", "output_dir")
        if self.output_dir is None:
            raise UsageError(f"{option('output_dir')} must be a name or a path, not None")
        choices = {"on_overlong": OnOverlong, "device": Device, "dtype": Dtype, "quantize": Quantize}
        for name, choice in choices.items():
            if getattr(self, name) not in get_args(choice):
                choices_text, given = ", ".join(get_args(choice)), getattr(self, name)
                raise UsageError(f"{option(name)} must be one of {choices_text}, not {given!r}")
        if isinstance(self.memory, bool) or not isinstance(self.memory, (int, float)) or not 0 < self.memory < math.inf:
            raise UsageError(f"{option('memory')} must be a number of GiB above 0, not {self.memory!r}")
        check_language(self.language)
        check_chat_template(self.chat_template_kwargs, self.chat_template_date)
        if self.fewshot_data is not None and not self.num_fewshot:
            raise UsageError(
                f"{option('fewshot_data')} needs {option('num_fewshot')}: how many of its examples should prompts show?"
            )

    def generation(self, task_default: Generation) -> Generation:
        """Return the task's way to draw completions, with what these options say otherwise.

        Raises:
            UsageError: a value is out of range, or contradicts another.
        """
        asked = {
            name: getattr(self, name)
            for name in ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "stop")
            if getattr(self, name) is not None
        }
        if self.temperature == 0:
            # Greedy was asked for: the task's own way to sample does not count.
            asked = {"top_p": 1.0, "top_k": 0, **asked}
        try:
            return replace(task_default, **asked)
        except ValueError as error:
            name, _, problem = str(error).partition(" ")
            raise UsageError(f"{option(name)} {problem}") from error


def with_changes(options: Options, changes: Mapping[str, object], kind: str) -> Options:
    """Return options with some set anew.

    Args:
        options: a dataclass of them.
        changes: values by field.
        kind: what an option is called in a message.

    Raises:
        UsageError: a value is out of range.
        UnknownNameError: there is no such option; offers the nearest.
    """
    known = [field.name for field in fields(options)]
    for name in changes:
        if name not in known:
            raise unknown_name(kind, name, known)
    return replace(options, **changes)


def check_counts(options: object, **least: int) -> None:
    """Refuse options that are neither None nor a whole number of at least so many.

    Raises:
        UsageError: names the option.
    """
    for name, number in least.items():
        value = getattr(options, name)
        if value is not None and (not isinstance(value, int) or not number <= value < LIMIT):
            most = "" if not isinstance(value, int) or value < LIMIT else " and below 2**63"
            raise UsageError(f"{option(name)} must be a whole number of at least {number}{most}, not {value!r}")


def check_paths(options: object, *names: str) -> None:
    """Refuse options that are neither None nor a name or path.

    Raises:
        UsageError: names the option.
    """
    for name in names:
        value = getattr(options, name)
        if not isinstance(value, (str, Path, NoneType)):
            raise UsageError(f"{option(name)} must be a name or a path, not {type(value).__name__}")


def check_chat_template(kwargs: object, day: object) -> None:
    """Refuse settings of a chat template that are not values by name, and a date that is none.

    Raises:
        UsageError: names the setting and what is expected.
    """
    plain = (str, int, float, bool, NoneType)
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise UsageError(f"{option('chat_template_kwargs')} must be values by name, not {kwargs!r}")
    for name, value in kwargs.items():
        if not isinstance(value, plain) or (isinstance(value, float) and not math.isfinite(value)):
            raise UsageError(
                f"{option('chat_template_kwargs')}: {name} must be text, a number, true, false or null, not {value!r}"
            )
        if name in THINKING_OFF and not isinstance(value, bool):
            raise UsageError(f"{option('chat_template_kwargs')}: {name} must be true or false, not {value!r}")
    if day is not None:
        try:
            date.fromisoformat(str(day))
        except ValueError:
            name = option("chat_template_date")
            raise UsageError(f'{name} must be a date such as "2026-11-28", not {day!r}') from None


def check_language(language: str | None) -> None:
    """Refuse what is neither None nor a language tag.

    Raises:
        UsageError: says what is expected.
    """
    if language is not None and not states_language(language):
        raise UsageError(f'{option("language")} must be a BCP 47 tag such as "zh" or "pt-BR", not "{language}"')
