"""Settings of a LoRA fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from lmtasks.errors import UsageError, option
from lmtasks.options.groups import DataOptions, ModelOptions, OnOverlong, PromptOptions
from lmtasks.options.run import RunOptions

Optimizer = Literal["adamw", "adam", "rmsprop", "adafactor", "sgd"]
Schedule = Literal["cosine", "linear", "constant", "polynomial", "inverse_sqrt"]


@dataclass(frozen=True, kw_only=True)
class TrainOptions(DataOptions, PromptOptions, ModelOptions):
    """The settings of a training; `None` leaves a setting to the task, or to the default that is stated.

    The groups that it shares with `RunOptions` mean the training data and the base model. `columns` and `language` hold
    for the evaluation data too, where it has these columns. The adapter keeps the settings of the chat template.
    """

    eval_data: str | Path | None = None
    """Evaluation data, scored before and after; None: another split of the data, or a part that is held out."""
    eval_split: str | None = None
    eval_limit: int | None = None
    metrics: tuple[str, ...] | None = None
    max_new_tokens: int | None = None
    """Maximum tokens of the answers that are scored."""
    validation: int | None = None
    """Training examples held out to choose the best checkpoint; None: 5%, at most 100; 0: the last one is kept."""

    rank: int = 16
    """LoRA rank."""
    alpha: float | None = None
    """LoRA alpha: the adapter's output is scaled by alpha / rank (alpha / sqrt(rank) with `rslora`); None: twice the
    rank."""
    dropout: float = 0.0
    """LoRA dropout. It keeps a float32 copy of the adapter's inputs, which doubles the memory of a step."""
    target_modules: tuple[str, ...] = ("all-linear",)
    """Names of the layers that get an adapter; "all-linear": all linear layers but the head."""
    rslora: bool = False
    dora: bool = False

    learning_rate: float = 5e-4
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    """Share of the steps, or from 1 on the number of steps."""
    optimizer: Optimizer = "adamw"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; 0: never."""
    epochs: float | None = None
    """Passes over the data; None: 1, unless `max_steps` is given."""
    max_steps: int | None = None
    max_minutes: float | None = None
    """Time limit of the training itself: the number of steps is chosen by the speed that is measured at the start."""
    batch_size: int = 8
    """Global batch size: examples of a step over all processes and micro-batches."""
    batch_tokens: int | None = None
    """Tokens of a step, prompt and answer, instead of a number of examples."""
    gradient_accumulation: int | None = None
    """Micro-batches of a step: less memory, the same result; None: as many as keep a micro-batch at about 4,096
    tokens."""
    gradient_checkpointing: bool = False
    """Recompute activations instead of keeping them: less memory, slower, the same result."""
    early_stopping: int | None = None
    """Stop after this many validations in a row without an improvement."""
    max_length: int = 2048
    """Maximum tokens of prompt and answer, or the model's context if that is shorter."""
    on_overlong: OnOverlong = "truncate"
    """What to do with an example that is longer; its answer is never truncated."""

    seed: int = 0
    """Seed of the held-out examples, the initial weights, the order of examples and dropout."""
    report_to: tuple[str, ...] = ()
    """Experiment trackers of transformers: tensorboard, wandb, mlflow, trackio."""
    output_dir: str | Path = "runs"
    """The folder that holds the run folders of the scores before and after."""

    def __post_init__(self) -> None:
        """Check all settings.

        Raises:
            UsageError: names the setting and what is expected.
        """
        super().__post_init__()
        self._check_names("metrics", "target_modules", "report_to")
        if self.report_to == ("none",):  # transformers' word for no tracker
            self._convert("report_to", ())
        self._check_counts(
            eval_limit=1,
            max_new_tokens=1,
            validation=0,
            rank=1,
            max_steps=1,
            batch_size=1,
            batch_tokens=1,
            gradient_accumulation=1,
            early_stopping=1,
            max_length=2,
            seed=0,
        )
        if self.seed >= 2**32:  # numpy's limit
            raise UsageError(f"{option('seed')} must be below {2**32}, not {self.seed}")
        self._check_paths("eval_data", "output_dir")
        for name in ("alpha", "learning_rate", "epochs", "max_minutes"):
            self._check_number(name, 0, above=True)
        self._check_number("dropout", 0, 1)
        for name in ("warmup", "weight_decay", "max_grad_norm"):
            self._check_number(name, 0)
        self._check_choices(schedule=Schedule, optimizer=Optimizer)
        self._check_flags("rslora", "dora", "gradient_checkpointing")
        self._check_contradictions()

    def _check_contradictions(self) -> None:
        if not self.target_modules:
            raise UsageError(f'{option("target_modules")} must name a layer, or "all-linear"')
        if self.dtype == "float16":
            raise UsageError(f"{option('dtype')} float16 overflows in training; use bfloat16 or float32")
        if self.epochs is not None and self.max_steps is not None:
            raise UsageError(f"{option('epochs')} and {option('max_steps')} exclude each other: give one of them")
        if self.early_stopping is not None and self.validation == 0:
            raise UsageError(
                f"{option('early_stopping')} needs validation examples: set {option('validation')} above 0"
            )

    @property
    def scale(self) -> float:
        """LoRA alpha as a number."""
        return 2.0 * self.rank if self.alpha is None else self.alpha

    def run_options(self, data: str | Path | None, split: str | None) -> RunOptions:
        """Return the settings of the runs that score the model before and after.

        Args:
            data: the evaluation data.
            split: its split.
        """
        shared = {
            option.name: getattr(self, option.name)
            for group in (DataOptions, PromptOptions, ModelOptions)
            for option in fields(group)
        }
        return RunOptions(
            **{
                **shared,
                "data": data,
                "split": split,
                "limit": self.eval_limit,
                # A training may skip examples; a run scores all of them.
                "on_overlong": "truncate" if self.on_overlong == "skip" else self.on_overlong,
                "metrics": self.metrics,
                "max_new_tokens": self.max_new_tokens,
                "seed": self.seed,
                "adapter": "none",
                "output_dir": self.output_dir,
            }
        )
