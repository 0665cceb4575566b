"""The unfinished training in an adapter's folder: what it is, how far it is, and who works on it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import filelock

from lmtasks.errors import TrainingError
from lmtasks.files import atomic_copy, atomic_write, remove_folder
from lmtasks.models.adapter_files import RECORD
from lmtasks.models.adapter_record import AdapterRecord
from lmtasks.shape import AtLeast, check_shape, parse_json, refuse_deep

FOLDER, STATE, LOCK = "training", "state.json", ".lock"
SCHEMA = 1


class StateRecord(TypedDict):
    """state.json: how far a training is."""

    schema: int
    decisive: dict[str, object]
    """What its result depends on."""
    steps: Annotated[int, AtLeast(1)]
    before: str | None
    """The run that scored the base."""
    trained: AdapterRecord | None
    """lmtasks.json, once the weights are there."""
    after: NotRequired[str | None]
    """The run that scored the adapter."""


def can_resume(adapter: Path) -> bool:
    """Tell whether an adapter's folder holds an unfinished training."""
    return (adapter / FOLDER / STATE).is_file()


class ResumeState:
    """The folder "training" within an adapter's folder; it goes when the adapter is finished."""

    def __init__(self, adapter: Path, state: dict[str, Any]) -> None:
        """Take the adapter's folder, and the state as it was written."""
        self.adapter, self.folder, self.state = adapter, adapter / FOLDER, state

    def note(self, **changes: object) -> None:
        """Keep how far the training is.

        Raises:
            TrainingError: the folder cannot be written.
        """
        self.state |= changes
        text = json.dumps(self.state, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
        try:
            atomic_write(self.folder / STATE, text.encode("utf-8"))
        except OSError as error:
            raise TrainingError(f"{self.folder}: cannot be written ({error})") from error

    def take(self, file: Path) -> None:
        """Copy a file into the adapter's folder, whole or not at all.

        Raises:
            TrainingError: it cannot be written.
        """
        try:
            atomic_copy(file, self.adapter / file.name)
        except OSError as error:
            raise TrainingError(f"{self.adapter}: cannot be written ({error}); go on with --resume") from error

    def remove(self) -> None:
        """Remove all that only an unfinished training needs."""
        # A kill in the middle must not leave what looks like an unfinished training.
        with suppress(OSError):
            remove_folder(self.folder)


def is_trained(adapter: Path) -> bool:
    """Tell whether a folder's training has come to its end, and only the scores are missing."""
    state = _read(adapter / FOLDER)
    return state is not None and state["trained"] is not None


def planned_steps(adapter: Path) -> int | None:
    """Return how many steps the unfinished training of a folder has planned; None: there is none."""
    state = _read(adapter / FOLDER)
    return state["steps"] if state else None


def planned_date(adapter: Path) -> str | None:
    """Return the date that the unfinished training of a folder tells its model; None: it tells none."""
    state = _read(adapter / FOLDER)
    return state["decisive"]["settings"]["chat_template_date"] if state else None


def check_target(adapter: Path, *, resume: bool) -> None:
    """Refuse a folder that a training may not write to, before anything else is done.

    Raises:
        TrainingError: it holds a finished adapter, an unfinished training that is not to be continued, nothing to
            continue, or something else.
    """
    if adapter.exists() and not adapter.is_dir():
        raise TrainingError(f"{adapter}: a file; name a folder for the adapter")
    if can_resume(adapter):
        if not resume:
            raise TrainingError(
                f"{adapter}: holds a training that has not finished; go on with --resume, or name another"
            )
    elif (adapter / RECORD).is_file():
        raise TrainingError(f"{adapter}: holds a finished adapter; name another folder with -o")
    elif adapter.is_dir() and any(path.name != FOLDER for path in adapter.iterdir()):
        raise TrainingError(f"{adapter}: is not empty and no adapter of lmtasks; name another folder with -o")
    elif resume:
        raise TrainingError(f"{adapter}: nothing to resume, it holds no unfinished training")


@contextmanager
def working_in(adapter: Path, decisive: Mapping[str, Any], *, steps: int) -> Iterator[ResumeState]:
    """Give the unfinished training of a folder, or a new one, and keep other processes out.

    Args:
        adapter: the folder, checked by `check_target`.
        decisive: what the result depends on; an unfinished training is continued only with the same.
        steps: that a new one has planned.

    Raises:
        TrainingError: another process trains in it, it was begun with something else, or cannot be written.
    """
    folder = adapter / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise TrainingError(f"{adapter}: another process trains in this folder") from None
    except (OSError, NotImplementedError) as error:  # filelock raises the latter where a file system cannot lock
        raise TrainingError(f"{adapter}: cannot be written ({error}); name another folder with -o") from error
    try:
        # As it is read back, so that tuples and lists compare.
        wanted = json.loads(json.dumps(decisive))
        begun = {"schema": SCHEMA, "decisive": wanted, "steps": steps, **dict.fromkeys(("before", "trained", "after"))}
        work = ResumeState(adapter, _read(folder) or begun)
        other = sorted(_differences(work.state["decisive"], wanted))
        if other:
            raise TrainingError(
                f"{adapter}: was begun with other settings ({', '.join(other)}); give the same, or name another folder"
            )
        work.note()
        yield work
    finally:
        lock.release()


def _read(folder: Path) -> dict[str, Any] | None:
    file = folder / STATE
    if not file.is_file():
        return None
    try:
        state = parse_json(file.read_text(encoding="utf-8"))
        if isinstance(state, dict) and state.get("schema") != SCHEMA:
            raise TrainingError(f"{file}: written by another version of lmtasks; finish it with that one")
        refuse_deep(state)
        check_shape(state, StateRecord)
    except (OSError, ValueError) as error:
        raise TrainingError(f"{file}: damaged ({error}); remove the folder {folder.parent} and begin anew") from error
    return dict(state)


def _differences(before: object, now: object, name: str = "") -> Iterator[str]:
    """Yield what differs, as "settings.learning_rate 0.0005, now 0.001"."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {*before, *now}:
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    elif before != now:
        yield f"{name} {before!r}, now {now!r}"
