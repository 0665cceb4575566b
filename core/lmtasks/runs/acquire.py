"""The folder that a run writes to: an unfinished one to resume, or a new one, locked while it is in use."""

from __future__ import annotations

import logging
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import filelock

from lmtasks.errors import RunError, option
from lmtasks.paths import user_path
from lmtasks.records.run import ModelRunRecord, OutputsRunRecord
from lmtasks.runs.folder import RECORD, OtherVersionError, read_record

LOCK = ".lock"
MAX_PART_BYTES = 100
"""Bytes of each part of a folder's name, in UTF-8: with a time, two parts and a number it stays below 255, the limit
of most file systems."""
FORBIDDEN = '<>:"/\\|?*'
"""Characters that some file systems do not allow in a name."""
log = logging.getLogger("lmtasks.runs")


@contextmanager
def acquire_run_folder(
    output_dir: str | Path, names: Sequence[str], key: str | None
) -> Iterator[tuple[Path, ModelRunRecord | None]]:
    """Lock the folder for a run, and yield it: an unfinished one with its record, or else a new one and None.

    Another process with the same run gets a new folder while this one is locked. A new folder that has no record in the
    end is removed.

    Args:
        output_dir: the folder of run folders; it is created if it does not exist.
        names: parts of the folder's name: task and model.
        key: hash of everything that could change an output; None: no run is resumed.

    Raises:
        PathError: no folder can have this name.
        RunError: the folder cannot be written.
    """
    parent = user_path(output_dir, "output folder")
    lock: filelock.BaseFileLock
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for path in _unfinished(parent, key) if key else ():
            lock = filelock.FileLock(path / LOCK)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                continue
            except (OSError, NotImplementedError) as error:
                raise RunError(
                    f"{path}: the unfinished run in it cannot be resumed ({error}); solve that, or choose another"
                    f" with {option('output_dir')}"
                ) from error
            # The process that held the lock may have finished the run in the meantime.
            before = _read(path)
            if isinstance(before, ModelRunRecord) and before.status != "finished":
                break
            lock.release()
        else:
            path, lock = _new_folder(parent, names)
            before = None
    except (OSError, NotImplementedError) as error:  # filelock raises the latter where a file system cannot lock
        raise RunError(
            f"{parent}: cannot write run folders here ({error}); choose another with {option('output_dir')}"
        ) from error
    try:
        yield path, before
    finally:
        recorded = (path / RECORD).exists()
        if recorded and (record := _read(path)) and record.status == "finished":
            # The lock is still held, so nobody can come between. An unfinished run keeps its lock file.
            with suppress(OSError):  # Windows does not remove open files
                (path / LOCK).unlink()
        lock.release()
        if before is None and not recorded:
            shutil.rmtree(path, ignore_errors=True)


def _read(path: Path) -> ModelRunRecord | OutputsRunRecord | None:
    """Return the record of a run; None where it cannot be resumed."""
    try:
        return read_record(path)
    except OtherVersionError:
        return None
    except RunError as error:
        log.warning("%s: this run cannot be resumed", error)
        return None


def _unfinished(output_dir: Path, key: str) -> Iterator[Path]:
    for file in sorted(output_dir.glob(f"*/{RECORD}"), reverse=True):
        record = _read(file.parent)
        if isinstance(record, ModelRunRecord) and record.key == key and record.status != "finished":
            yield file.parent


def _new_folder(output_dir: Path, names: Sequence[str]) -> tuple[Path, filelock.BaseFileLock]:
    """Create a folder and lock it; nothing is left where that fails."""
    stem = "-".join([f"{datetime.now().astimezone():%Y%m%d-%H%M%S}", *map(name_part, names)])
    number = 1
    while True:
        path = output_dir / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
            continue
        lock = filelock.FileLock(path / LOCK)
        try:
            lock.acquire(timeout=0)
        except (OSError, NotImplementedError):
            shutil.rmtree(path, ignore_errors=True)
            raise
        return path, lock


def name_part(text: str) -> str:
    """Return a text as a part of a folder's name that every common file system allows.

    Forbidden characters become "-"; more than `MAX_PART_BYTES` bytes are cut off, between two characters.
    """
    plain = "".join("-" if character in FORBIDDEN or _is_control(character) else character for character in text)
    return plain.encode("utf-8")[:MAX_PART_BYTES].decode("utf-8", "ignore").strip(". ") or "-"


def _is_control(character: str) -> bool:
    """Return whether a character is invisible: controls, marks of direction, line ends, half surrogate pairs."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
