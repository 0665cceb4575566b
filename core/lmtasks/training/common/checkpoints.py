"""Checkpoints that are whole or not there: written aside, renamed, and removed when a newer one stands."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NotRequired, TypedDict

from safetensors import SafetensorError

from lmtasks.errors import TrainingError
from lmtasks.files import atomic_folder, temporary_path
from lmtasks.shape import AtLeast, check_shape

PREFIX = "checkpoint-"
"""As transformers calls them."""
STATE = "trainer_state.json"


def checkpoint(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step is."""
    return folder / f"{PREFIX}{step}"


def checkpoints(folder: Path) -> dict[int, Path]:
    """Return the checkpoints of a training by their step, the oldest first."""
    found = {
        int(path.name.removeprefix(PREFIX)): path
        for path in folder.glob(f"{PREFIX}*")
        if re.fullmatch("[1-9][0-9]*", path.name.removeprefix(PREFIX))
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


def check_checkpoint(path: Path, *, steps: int, processes: int, weight_files: Sequence[str]) -> None:
    """Refuse a checkpoint from which a training would go on to other weights, or could not end.

    transformers skips files of optimizer, schedule and random state that are missing, without a word.

    Args:
        path: the checkpoint's folder, among the other checkpoints of its training.
        steps: that the training has planned.
        processes: that train together now.
        weight_files: names of the files that hold the weights.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is missing, or trainer_state.json is damaged or of another checkpoint; says what.
    """
    _check_files(path, (*weight_files, "optimizer.pt", "scheduler.pt", *_random_states(path, processes), STATE))
    # Trainer itself writes NaN, for the norm of gradients that was not measured.
    state = json.loads((path / STATE).read_text(encoding="utf-8"))
    check_shape(state, TrainerRecord)
    if path != checkpoint(path.parent, state["global_step"]):
        raise ValueError(f"{STATE} is of step {state['global_step']}")
    if state["max_steps"] != steps:
        raise ValueError(f"{STATE} is of a training of {state['max_steps']} steps, and {steps} are planned")
    if state["global_step"] > steps:
        raise ValueError(f"only {steps} steps are planned")
    best = state.get("best_global_step")
    if best:
        try:
            _check_files(checkpoint(path.parent, best), weight_files)
        except ValueError as error:
            raise ValueError(f"its best_global_step is {best}, and of {PREFIX}{best} {error}") from error


def _random_states(path: Path, processes: int) -> list[str]:
    """Return the files of random state that a checkpoint must have; another number of processes may have written it."""
    names = ["rng_state.pth"] if processes == 1 else [f"rng_state_{number}.pth" for number in range(processes)]
    others = {file.name for file in path.glob("rng_state*.pth")}
    return names if others & {*names} or not others else []


def _check_files(path: Path, names: Iterable[str]) -> None:
    for name in names:
        if not (path / name).is_file():
            raise ValueError(f"{name} is missing")


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
    try:
        with atomic_folder(path, main=main, wait=wait) as temporary:
            yield temporary
    except (OSError, RuntimeError, SafetensorError) as error:  # torch raises a RuntimeError on a full disk
        raise TrainingError(
            f"{path}: the checkpoint cannot be written ({str(error).splitlines()[0]}); the last one, if any, is kept."
            " Make room and go on with --resume"
        ) from error


def remove_old(folder: Path, keep: set[int]) -> None:
    """Remove all checkpoints but those of these steps, and what a kill left half-written."""
    for step, path in checkpoints(folder).items():
        if step not in keep:
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(temporary_path(folder / f"{PREFIX}*").name):
        shutil.rmtree(path, ignore_errors=True)
