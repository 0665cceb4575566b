"""Checkpoints, complete or absent: written under a temporary name, renamed, and removed when they are superseded."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from lmtasks.errors import TrainingError, option
from lmtasks.files import atomic_folder, temporary_path
from lmtasks.records.training import read_checkpoint_record

PREFIX = "checkpoint-"
"""Prefix of a checkpoint's name, as in transformers."""
STATE = "trainer_state.json"


def checkpoint(folder: Path, step: int) -> Path:
    """Return the folder of the checkpoint of a step."""
    return folder / f"{PREFIX}{step}"


def checkpoints(folder: Path) -> dict[int, Path]:
    """Return the checkpoints of a training by their step, the oldest first."""
    paths = {
        int(path.name.removeprefix(PREFIX)): path
        for path in folder.glob(f"{PREFIX}*")
        if re.fullmatch("[1-9][0-9]*", path.name.removeprefix(PREFIX))
    }
    return dict(sorted(paths.items()))


def check_checkpoint(path: Path, *, steps: int, processes: int, weight_files: Sequence[str]) -> None:
    """Refuse a checkpoint from which a training would arrive at other weights, or could not end.

    transformers ignores missing files of optimizer, schedule and random state without a warning.

    Args:
        path: the checkpoint's folder, among the other checkpoints of its training.
        steps: the number of planned steps.
        processes: the number of processes that train together now.
        weight_files: names of the files that hold the weights.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is missing, or trainer_state.json is damaged or of another checkpoint; says what.
    """
    _check_files(path, (*weight_files, "optimizer.pt", "scheduler.pt", *_random_states(path, processes), STATE))
    state = read_checkpoint_record((path / STATE).read_text(encoding="utf-8"))
    if path != checkpoint(path.parent, state.global_step):
        raise ValueError(f"{STATE} is of step {state.global_step}")
    if state.max_steps != steps:
        raise ValueError(f"{STATE} is of a training of {state.max_steps} steps, and {steps} are planned")
    if state.global_step > steps:
        raise ValueError(f"only {steps} steps are planned")
    if best := state.best_global_step:
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
def atomic_checkpoint(path: Path, *, main: bool, wait: Callable[[], None]) -> Iterator[Path]:
    """Give a temporary folder that is renamed to `path` at the end.

    Args:
        path: the checkpoint's folder; it must not exist.
        main: whether this process creates and renames folders.
        wait: blocks until all processes have called it.

    Raises:
        TrainingError: the disk is full or cannot be written; nothing incomplete is left.
    """
    try:
        with atomic_folder(path, main=main, wait=wait) as temporary:
            yield temporary
    except (OSError, RuntimeError, SafetensorError) as error:  # torch raises a RuntimeError on a full disk
        raise TrainingError(
            f"{path}: the checkpoint cannot be written ({str(error).splitlines()[0]}); the last one, if any, is kept."
            f" Free some space and resume the training with {option('resume', True)}"
        ) from error


def remove_old(folder: Path, keep: set[int]) -> None:
    """Remove all checkpoints but those of these steps, and what a killed training left incomplete."""
    for step, path in checkpoints(folder).items():
        if step not in keep:
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(temporary_path(folder / f"{PREFIX}*").name):
        shutil.rmtree(path, ignore_errors=True)
