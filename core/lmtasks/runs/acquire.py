"""The folder that a run writes to: an unfinished one to continue, or a new one, locked while it is in use."""

from __future__ import annotations

import logging
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock

from lmtasks.errors import RunError, option
from lmtasks.paths import user_path
from lmtasks.runs.folder import RECORD, OtherVersionError, read_record

LOCK = ".lock"
LONGEST_PART = 100
"""Bytes of each part of a folder's name, in UTF-8: with a time, two parts and a number it stays below 255, which is
what most file systems take."""
REFUSED = '<>:"/\\|?*'
"""Characters that some file system refuses in a name."""
log = logging.getLogger("lmtasks.runs")


@contextmanager
def acquire_run_folder(
    output_dir: str | Path, names: Sequence[str], key: str | None
) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """Give the folder for a run: an unfinished one with the same key and its record, or else a new one and None.

    While the folder is in use it is locked, so that another process with the same run takes a folder of its own. A new
    folder that has no record in the end is removed.

    Args:
        output_dir: holds run folders; it is made if it is not there.
        names: of the run: task and model.
        key: of everything that could change an output; None: nothing is continued.

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
                    f"{path}: the unfinished run in it cannot be continued ({error}); mend that, or choose another"
                    f" {option('output_dir')}"
                ) from error
            # Whoever held the lock until now may have finished the run since we looked.
            before = _read(path)
            if before and before["status"] != "finished":
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
        if recorded and (record := _read(path)) and record["status"] == "finished":
            # Still held: nobody can come between. A folder that may be continued keeps its lock file.
            with suppress(OSError):  # Windows removes no open file
                (path / LOCK).unlink()
        lock.release()
        if before is None and not recorded:
            shutil.rmtree(path, ignore_errors=True)


def _read(path: Path) -> dict[str, Any] | None:
    """Return the record of a run; None where it cannot be continued."""
    try:
        return read_record(path)
    except OtherVersionError:
        return None
    except RunError as error:
        log.warning("%s: this run cannot be continued", error)
        return None


def _unfinished(output_dir: Path, key: str) -> Iterator[Path]:
    for file in sorted(output_dir.glob(f"*/{RECORD}"), reverse=True):
        record = _read(file.parent)
        if record and record.get("key") == key and record["status"] != "finished":
            yield file.parent


def _new_folder(output_dir: Path, names: Sequence[str]) -> tuple[Path, filelock.BaseFileLock]:
    """Make a folder and lock it; nothing stays where that fails."""
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
    """Return a text as a part of a folder's name that every usual file system takes.

    What they refuse becomes "-"; more than `LONGEST_PART` bytes are cut off, between two characters.
    """
    plain = "".join("-" if character in REFUSED or _is_control(character) else character for character in text)
    return plain.encode("utf-8")[:LONGEST_PART].decode("utf-8", "ignore").strip(". ") or "-"


def _is_control(character: str) -> bool:
    """Return whether a character is none to be seen: controls, marks of direction, line ends, half surrogate pairs."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
