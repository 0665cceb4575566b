"""transformers' TrainerState, read from a checkpoint: progress, time and losses of a training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from transformers import TrainerState

from lmtasks.errors import TrainingError
from lmtasks.training.common.checkpoints import STATE, check_checkpoint, checkpoint, checkpoints
from lmtasks.training.common.distributed import world_size


def newest_state(folder: Path, *, steps: int, weight_files: Sequence[str]) -> TrainerState | None:
    """Return the state of the newest checkpoint in a folder; None: there is no checkpoint.

    Args:
        folder: the folder of the checkpoints.
        steps: number of steps that the training has planned.
        weight_files: names of the files that hold the weights of a checkpoint.

    Raises:
        TrainingError: the checkpoint is damaged, incomplete or of another training.
    """
    newest = max(checkpoints(folder), default=None)
    if newest is None:
        return None
    path = checkpoint(folder, newest)
    try:
        check_checkpoint(path, steps=steps, processes=world_size(), weight_files=weight_files)
        return TrainerState.load_from_json(str(path / STATE))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise damaged_checkpoint(path, error) from error


def damaged_checkpoint(path: Path, error: Exception) -> TrainingError:
    """Return the error that names a checkpoint which cannot be read."""
    cause = " ".join(str(error).split())[:200]
    return TrainingError(f"{path}: this checkpoint cannot be read ({cause}); remove it to resume from the one before")


def seconds_spent(state: TrainerState) -> float:
    """Return the seconds of training up to a checkpoint, over all interruptions."""
    return max((entry["seconds"] for entry in state.log_history if "seconds" in entry), default=0.0)


def has_ended(state: TrainerState) -> bool:
    """Return whether a training ended with a checkpoint: at its last step, by early stopping or by its time limit."""
    control = state.stateful_callbacks.get("TrainerControl", {}).get("args", {})
    return state.global_step >= state.max_steps or bool(control.get("should_training_stop"))


def loss_history(state: TrainerState) -> list[dict[str, float]]:
    """Return losses, learning rates and gradient norms by step, without values that are not finite."""
    names = ("step", "loss", "eval_loss", "learning_rate", "grad_norm")
    entries = [entry for entry in state.log_history if "loss" in entry or "eval_loss" in entry]
    return [{name: value for name in names if _is_finite(value := entry.get(name))} for entry in entries]


def _is_finite(value: object) -> bool:
    return isinstance(value, float | int) and math.isfinite(value)
