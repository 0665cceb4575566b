"""What can be asked of a training, from the command line, a settings file and Python."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from lmtasks.errors import UsageError
from lmtasks.models.info import Device, Dtype
from lmtasks.prompts import OnOverlong
from lmtasks.runs.options import RunOptions, check_chat_template, check_counts, check_language, check_paths
from lmtasks.task import as_tuple
from lmtasks.training.common.settings import Optimizer, Schedule

LEAST = {
    "limit": 1,
    "eval_limit": 1,
    "max_new_tokens": 1,
    "validation": 0,
    "rank": 1,
    "max_steps": 1,
    "batch_size": 1,
    "batch_tokens": 1,
    "gradient_accumulation": 1,
    "early_stopping": 1,
    "max_length": 2,
    "seed": 0,
}
"""Of each setting that is a whole number, the smallest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """The settings of a training; None leaves a thing to the task, or to what is said."""

    data: str | Path | None = None
    """What is learned, as in RunOptions."""
    split: str | None = None
    limit: int | None = None
    """Take only the first examples, this many."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field to column; counts for the evaluation data too, where that has those columns."""
    language: str | None = None
    eval_data: str | Path | None = None
    """What the adapter is scored on, before and after; None: another split of the data, or a part held out."""
    eval_split: str | None = None
    eval_limit: int | None = None
    prompt: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    """Settings of the task, as in RunOptions."""
    chat_template_kwargs: Mapping[str, object] = field(default_factory=dict)
    """Variables of the model's chat template, as in RunOptions; the adapter keeps them."""
    chat_template_date: str | None = None
    """What a chat template that tells the date takes for today; the adapter keeps it. None: the date of the training
    that is resumed, or today."""
    metrics: tuple[str, ...] | None = None
    max_new_tokens: int | None = None
    """Of the answers that are scored."""
    validation: int | None = None
    """Examples held out of the data to choose the best checkpoint by; None: 5%, at most 100; 0: the last is kept."""

    rank: int = 16
    alpha: float | None = None
    """The adapter's output is scaled by alpha / rank (by alpha / sqrt(rank) with `rslora`); None: twice the rank."""
    dropout: float = 0.0
    """Of the adapter's inputs. A copy of them is kept in float32: it doubles the memory of a step."""
    target_modules: tuple[str, ...] = ("all-linear",)
    """Names of the layers that get an adapter; "all-linear": all but the head."""
    rslora: bool = False
    dora: bool = False

    learning_rate: float = 5e-4
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    """A share of the steps, or from 1 on a number of them."""
    optimizer: Optimizer = "adamw"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0: never."""
    epochs: float | None = None
    """Passes over the data; None: 1, unless `max_steps` says otherwise."""
    max_steps: int | None = None
    max_minutes: float | None = None
    """Of training alone: the steps are made as many as fit, by the speed that is measured at the start."""
    batch_size: int = 8
    """Examples of a step, whatever the number of processes and of accumulated parts."""
    batch_tokens: int | None = None
    """Tokens of a step, prompt and answer, instead of a number of examples."""
    gradient_accumulation: int | None = None
    """Parts that a step is computed in, one after the other: less memory, the same result; None: as many as keep a
    part at about 4,096 tokens."""
    gradient_checkpointing: bool = False
    """Compute activations again instead of keeping them: less memory, slower, the same result."""
    early_stopping: int | None = None
    """End after this many validations in a row without a better one."""
    max_length: int = 2048
    """Tokens of prompt and answer at most, or the model's context if that is shorter."""
    on_overlong: OnOverlong = "cut"
    """What to do with an example that is longer; its answer is never cut."""

    seed: int = 0
    """Of what is held out, of the first weights, the order of examples and dropout."""
    device: Device = "auto"
    dtype: Dtype = "auto"
    """Of the base model; the adapter itself is float32."""
    trust_remote_code: bool = False
    report_to: tuple[str, ...] = ()
    """Trackers that transformers knows: tensorboard, wandb, mlflow, trackio."""
    output_dir: str | Path = "runs"
    """The folder that holds the run folders of the scores before and after."""

    def __post_init__(self) -> None:
        """Refuse what no training can do.

        Raises:
            UsageError: names the setting and what is expected.
        """
        for name in ("metrics", "target_modules", "report_to"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_tuple(getattr(self, name)))
        if self.report_to == ("none",):  # as transformers calls it
            object.__setattr__(self, "report_to", ())
        for name, least in LEAST.items():
            value = getattr(self, name)
            if isinstance(value, int) and abs(value) >= 2**63:  # too long to be printed, it may be
                raise UsageError(f"{name} must be a whole number of at least {least} and below 2**63")
        check_counts(self, **LEAST)
        if self.seed >= 2**32:  # numpy's limit
            raise UsageError(f"seed must be below {2**32}, not {self.seed}")
        check_paths(self, "data", "eval_data", "output_dir")
        check_language(self.language)
        check_chat_template(self.chat_template_kwargs, self.chat_template_date)
        for name, low, high in (
            ("alpha", 0.0, math.inf),
            ("learning_rate", 0.0, math.inf),
            ("epochs", 0.0, math.inf),
            ("max_minutes", 0.0, math.inf),
        ):
            self._check_number(name, low, high, open_low=True)
        for name, low, high in (
            ("dropout", 0.0, 1.0),
            ("warmup", 0.0, math.inf),
            ("weight_decay", 0.0, math.inf),
            ("max_grad_norm", 0.0, math.inf),
        ):
            self._check_number(name, low, high)
        for name, choice in (
            ("schedule", Schedule),
            ("optimizer", Optimizer),
            ("on_overlong", OnOverlong),
            ("device", Device),
            ("dtype", Dtype),
        ):
            if getattr(self, name) not in get_args(choice):
                raise UsageError(f"{name} must be one of {', '.join(get_args(choice))}, not {getattr(self, name)!r}")
        for name in ("rslora", "dora", "gradient_checkpointing", "trust_remote_code"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} must be true or false, not {getattr(self, name)!r}")
        if not self.target_modules:
            raise UsageError('target_modules must name a layer, or "all-linear"')
        if self.dtype == "float16":
            raise UsageError("dtype float16 overflows in training; use bfloat16 or float32")
        if self.epochs is not None and self.max_steps is not None:
            raise UsageError("epochs and max_steps contradict each other: give one of them")
        if self.early_stopping is not None and self.validation == 0:
            raise UsageError("early_stopping needs validation examples: give validation more than 0")

    def _check_number(self, name: str, low: float, high: float, *, open_low: bool = False) -> None:
        value = getattr(self, name)
        if value is None:
            return
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
        if not fits or (open_low and value == low) or value > sys.float_info.max:
            more = "more than" if open_low else "at least"
            most = f" and at most {high:g}" if math.isfinite(high) else ""
            # A whole number may be too long to be printed.
            given = "" if isinstance(value, int) and abs(value) >= 2**63 else f", not {value!r}"
            raise UsageError(f"{name} must be a number of {more} {low:g}{most}{given}")
        object.__setattr__(self, name, float(value))

    @property
    def scale(self) -> float:
        """LoRA's alpha."""
        return 2.0 * self.rank if self.alpha is None else self.alpha

    def run_options(self, data: str | Path | None, split: str | None) -> RunOptions:
        """Return the settings of the runs that score the model before and after."""
        return RunOptions(
            data=data,
            split=split,
            limit=self.eval_limit,
            columns=self.columns,
            language=self.language,
            prompt=self.prompt,
            parameters=self.parameters,
            chat_template_kwargs=self.chat_template_kwargs,
            chat_template_date=self.chat_template_date,
            metrics=self.metrics,
            max_new_tokens=self.max_new_tokens,
            on_overlong="cut" if self.on_overlong == "skip" else self.on_overlong,
            seed=self.seed,
            device=self.device,
            dtype=self.dtype,
            trust_remote_code=self.trust_remote_code,
            adapter="none",
            output_dir=self.output_dir,
        )
