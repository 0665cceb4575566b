"""The unfinished training in an adapter's folder: its settings, its progress, and its lock."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock

from lmtasks.errors import TrainingError, option
from lmtasks.files import atomic_copy, atomic_write, remove_folder
from lmtasks.models.adapter_files import RECORD
from lmtasks.records.reading import OtherSchemaError, validate
from lmtasks.records.training import DecisiveRecord, TrainingStateRecord, read_training_state, training_state_text

FOLDER, STATE, LOCK = "training", "state.json", ".lock"


def can_resume(adapter: Path) -> bool:
    """Return whether an adapter's folder holds an unfinished training."""
    return (adapter / FOLDER / STATE).is_file()


class ResumeState:
    """The folder "training" within an adapter's folder; it is removed when the adapter is finished."""

    def __init__(self, adapter: Path, state: TrainingStateRecord) -> None:
        """Store the adapter's folder, and the state as it was read or begun."""
        self.adapter, self.folder, self.state = adapter, adapter / FOLDER, state

    def update(self, **changes: object) -> None:
        """Change fields of the state, and write it.

        Raises:
            TrainingError: the folder cannot be written.
        """
        self.state = self.state.model_copy(update=changes)
        try:
            atomic_write(self.folder / STATE, training_state_text(self.state).encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise TrainingError(f"{self.folder}: cannot be written ({error})") from error

    def copy_in(self, file: Path) -> None:
        """Copy a file into the adapter's folder, completely or not at all.

        Raises:
            TrainingError: it cannot be written.
        """
        try:
            atomic_copy(file, self.adapter / file.name)
        except OSError as error:
            raise TrainingError(
                f"{self.adapter}: cannot be written ({error}); resume the training with {option('resume', True)}"
            ) from error

    def remove(self) -> None:
        """Remove the folder of the unfinished training."""
        # A kill in the middle must not leave what looks like an unfinished training.
        with suppress(OSError):
            remove_folder(self.folder)


def is_trained(adapter: Path) -> bool:
    """Return whether a folder's training has ended, and only the scores are missing."""
    state = _read(adapter / FOLDER)
    return state is not None and state.trained is not None


def planned_steps(adapter: Path) -> int | None:
    """Return the planned number of steps of a folder's unfinished training; None: there is none."""
    state = _read(adapter / FOLDER)
    return state.steps if state else None


def planned_date(adapter: Path) -> str | None:
    """Return the date in the chat template of a folder's unfinished training; None: it has none."""
    state = _read(adapter / FOLDER)
    return state.decisive.settings.chat_template_date if state else None


def check_target(adapter: Path, *, resume: bool) -> None:
    """Refuse a folder that a training must not write to, before anything else is done.

    Raises:
        TrainingError: it holds a finished adapter, an unfinished training that is not to be resumed, nothing to
            resume, or other files.
    """
    if adapter.exists() and not adapter.is_dir():
        raise TrainingError(f"{adapter}: a file; name a folder for the adapter")
    if can_resume(adapter):
        if not resume:
            raise TrainingError(
                f"{adapter}: holds a training that has not finished; resume it with {option('resume', True)}, or name"
                " another"
            )
    elif (adapter / RECORD).is_file():
        raise TrainingError(f"{adapter}: holds a finished adapter; name another folder")
    elif adapter.is_dir() and any(path.name != FOLDER for path in adapter.iterdir()):
        raise TrainingError(f"{adapter}: is not empty and no adapter of lmtasks; name another folder")
    elif resume:
        raise TrainingError(f"{adapter}: nothing to resume, it holds no unfinished training")


@contextmanager
def open_state(adapter: Path, decisive: Mapping[str, Any], *, steps: int) -> Iterator[ResumeState]:
    """Lock the unfinished training of a folder, or a new one, and yield it.

    Args:
        adapter: the folder, checked by `check_target`.
        decisive: what the result depends on; an unfinished training is resumed only with the same.
        steps: planned steps of a new training.

    Raises:
        TrainingError: another process trains in it, it was begun with other settings, or it cannot be written.
    """
    folder = adapter / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise TrainingError(f"{adapter}: another process trains in this folder") from None
    except (OSError, NotImplementedError) as error:  # filelock raises the latter where a file system cannot lock
        raise TrainingError(f"{adapter}: cannot be written ({error}); name another folder") from error
    try:
        # As it is read back, so that tuples and lists compare.
        wanted = validate(DecisiveRecord, json.loads(json.dumps(decisive)))
        work = ResumeState(adapter, _read(folder) or TrainingStateRecord(decisive=wanted, steps=steps))
        other = sorted(_differences(work.state.decisive.to_json(), wanted.to_json()))
        if other:
            raise TrainingError(
                f"{adapter}: was begun with other settings ({', '.join(other)}); give the same, or name another folder"
            )
        work.update()
        yield work
    finally:
        lock.release()


def _read(folder: Path) -> TrainingStateRecord | None:
    file = folder / STATE
    if not file.is_file():
        return None
    try:
        return read_training_state(file.read_text(encoding="utf-8"))
    except OtherSchemaError as error:
        raise TrainingError(f"{file}: {error}; finish the training with the lmtasks that began it") from error
    except (OSError, ValueError) as error:
        raise TrainingError(f"{file}: damaged ({error}); remove the folder {folder.parent} and start again") from error


def _differences(before: object, now: object, name: str = "") -> Iterator[str]:
    """Yield the differences, such as "settings.learning_rate 0.0005, now 0.001"."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {*before, *now}:
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    elif before != now:
        yield f"{name} {before!r}, now {now!r}"
