"""Checkpoints that are whole or not there: written aside, renamed, and removed when a newer one stands."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NotRequired, TypedDict

from safetensors import SafetensorError

from lmtasks.errors import TrainingError
from lmtasks.shape import AtLeast, check_shape

PREFIX = "checkpoint-"
"""As transformers calls them."""


def checkpoint(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step is."""
    return folder / f"{PREFIX}{step}"


def checkpoints(folder: Path) -> dict[int, Path]:
    """Return the checkpoints of a training by their step, the oldest first."""
    found = {
        int(path.name.removeprefix(PREFIX)): path
        for path in folder.glob(f"{PREFIX}*")
        if path.name.removeprefix(PREFIX).isdigit()
    }
    return dict(sorted(found.items()))


class ControlRecord(TypedDict):
    """What Trainer keeps of its callback "TrainerControl"."""

    args: NotRequired[dict[str, object]]


class CallbacksRecord(TypedDict):
    """What Trainer keeps of its callbacks, by their name."""

    TrainerControl: NotRequired[ControlRecord]


class LoggedRecord(TypedDict):
    """What is logged after a step."""

    step: float
    loss: NotRequired[float]
    eval_loss: NotRequired[float]
    learning_rate: NotRequired[float]
    seconds: NotRequired[float]


class TrainerRecord(TypedDict):
    """Of trainer_state.json, what is used here."""

    global_step: Annotated[int, AtLeast(1)]
    max_steps: Annotated[int, AtLeast(1)]
    best_global_step: NotRequired[Annotated[int, AtLeast(0)] | None]
    best_metric: NotRequired[float | None]
    log_history: list[LoggedRecord]
    stateful_callbacks: CallbacksRecord


def check_trainer_state(file: Path) -> None:
    """Refuse a checkpoint's trainer_state.json that is damaged.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or not what Trainer writes; says where.
    """
    # Trainer itself writes NaN, for the norm of gradients that was not measured.
    check_shape(json.loads(file.read_text(encoding="utf-8")), TrainerRecord)


@contextmanager
def writing_aside(path: Path, *, main: bool, wait: Callable[[], None]) -> Iterator[Path]:
    """Give a folder beside `path` that takes its place once it is complete.

    Args:
        path: of the checkpoint; it must not be there.
        main: whether this process is the one that makes and renames folders.
        wait: called without arguments, waits for all processes.

    Raises:
        TrainingError: the disk is full or not to be written; nothing half-written stays.
    """
    aside = path.with_name(f".{path.name}.part")
    try:
        if main:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        wait()
        yield aside
        wait()
        if main:
            os.replace(aside, path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch raises a RuntimeError on a full disk
        shutil.rmtree(aside, ignore_errors=True)
        raise TrainingError(
            f"{path}: the checkpoint cannot be written ({str(error).splitlines()[0]}); the last one, if any, is kept."
            " Make room and go on with --resume"
        ) from error


def remove_old(folder: Path, keep: set[int]) -> None:
    """Remove all checkpoints but those of these steps, and what a kill left half-written."""
    for step, path in checkpoints(folder).items():
        if step not in keep:
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(f".{PREFIX}*.part"):
        shutil.rmtree(path, ignore_errors=True)
