"""A trainer callback that reports progress, schedules checkpoints, and stops on the time limit or on divergence."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmtasks.errors import TrainingError, option
from lmtasks.progress import OnProgress

SAVE_SECONDS = 120.0
"""Seconds between checkpoints at most: what a killed training can lose."""


def diverged(what: str, step: int) -> TrainingError:
    """Return the error of a training whose loss or gradient is NaN or infinite.

    Args:
        what: "the loss", "the gradient", ...
        step: number of the step.
    """
    return TrainingError(
        f"{what} is NaN or infinite at step {step}; the last good checkpoint, if any, is kept. Start again with a lower"
        f" {option('learning_rate')}, a longer {option('warmup')} or {option('dtype', 'float32')}"
    )


class TrainingMonitor(TrainerCallback):
    """Reports progress, requests checkpoints and validations, and stops a training in time or when it diverges."""

    def __init__(
        self,
        what: str,
        on_progress: OnProgress,
        *,
        validates: bool,
        max_minutes: float | None,
        spent: float,
    ) -> None:
        """Watch a training.

        Args:
            what: names it in progress reports.
            on_progress: called with the steps that are done.
            validates: whether there is validation data.
            max_minutes: the time limit, or None.
            spent: seconds of training before an interruption.
        """
        self.what, self.on_progress, self.validates = what, on_progress, validates
        self.seconds = None if max_minutes is None else max_minutes * 60
        self.started = self.saved = time.monotonic()
        self.before = spent
        self.losses: dict[str, float] = {}
        self.stepped = False

    @property
    def spent(self) -> float:
        """Seconds of training so far, those before an interruption included."""
        return self.before + time.monotonic() - self.started

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clocks."""
        self.started = self.saved = time.monotonic()
        self.on_progress(self.what, state.global_step, state.max_steps)

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **_: Any,
    ) -> None:
        """Refuse gradients that are not finite before they spoil the weights.

        Raises:
            TrainingError: a gradient is NaN or infinite.
        """
        if model is None:
            return
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        if not torch.stack([gradient.sum() for gradient in gradients]).sum().isfinite():
            raise diverged("the gradient", state.global_step + 1)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Request the checkpoints and validations that are due."""
        self.stepped = True
        now = time.monotonic()
        if self.seconds is not None and self.spent > self.seconds:
            control.should_training_stop = True
        if state.global_step >= state.max_steps or control.should_training_stop:
            control.should_save = True
            control.should_evaluate = self.validates
            control.should_log = True
        if _any_process(now - self.saved > SAVE_SECONDS, args.device):
            control.should_save = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save what was validated: it may be the best checkpoint."""
        control.should_save = state.global_step > 0

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Restart the clock of checkpoints."""
        self.saved = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Report step and losses."""
        for name, label in (("loss", "loss"), ("eval_loss", "validation")):
            if logs and name in logs:
                self.losses[label] = logs[name]
        note = ", ".join(f"{label} {value:.3f}" for label, value in self.losses.items())
        self.on_progress(self.what, state.global_step, state.max_steps, note)


def _any_process(value: bool, device: torch.device) -> bool:
    """Return whether `value` is true in any process: a joint action, such as saving, must not depend on one's clock."""
    if not torch.distributed.is_initialized():
        return value
    values = torch.tensor(float(value), device=device)
    torch.distributed.all_reduce(values, op=torch.distributed.ReduceOp.MAX)
    return bool(values)
