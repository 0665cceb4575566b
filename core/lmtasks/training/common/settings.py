"""Settings of a trainer, whatever it trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Optimizer = Literal["adamw", "adam", "rmsprop", "adafactor", "sgd"]
Schedule = Literal["cosine", "linear", "constant", "polynomial", "inverse_sqrt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerSettings:
    """Optimizer, schedule, limits and trackers of a training."""

    optimizer: Optimizer = "adamw"
    learning_rate: float
    schedule: Schedule = "cosine"
    warmup: float = 0.0
    """A share of the steps; from 1 on, a number of steps."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; 0: never."""
    gradient_checkpointing: bool = False
    """Recompute activations instead of keeping them."""
    max_minutes: float | None = None
    """Time limit of the training."""
    early_stopping: int | None = None
    """Stop after this many validations in a row without a better one; None: never."""
    seed: int = 0
    report_to: tuple[str, ...] = ()
    """Trackers that transformers knows: tensorboard, wandb, mlflow, trackio."""
    tracker_folder: str | None = None
    """The folder of TensorBoard's logs; None: transformers chooses."""

    def warmup_steps(self, steps: int) -> int:
        """Return the number of warm-up steps of a training with so many steps."""
        return min(round(self.warmup if self.warmup >= 1 else self.warmup * steps), steps)
