"""The run folder: run.json and samples.jsonl, written so that an interruption loses nothing that was finished."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import filelock

from lmtasks.errors import RunError
from lmtasks.task import LogLikelihood, Sample, Score

SCHEMA = 1
"""Of run.json and samples.jsonl; raised when a field changes its meaning or goes."""
ESCAPED = "backslashreplace"
"""What becomes of half a surrogate pair, wherever it comes from: an escape of JSON."""
RECORD, SAMPLES, LOCK = "run.json", "samples.jsonl", ".lock"


class Run:
    """A run folder, read: what was asked, what came out, what it scored."""

    def __init__(self, path: Path) -> None:
        """Read the record of a run.

        Raises:
            RunError: it is no run folder, or one of a newer lmtasks.
        """
        self.path = path
        self.record = read_record(path)

    @property
    def status(self) -> str:
        """One of "running", "finished", "failed" and "interrupted"."""
        return str(self.record["status"])

    @property
    def scores(self) -> list[Score]:
        """The scores, as they were computed."""
        return [Score(**score) for score in self.record["scores"]]

    @property
    def health(self) -> list[Score]:
        """How sound the outputs are: shares of empty, unfinished, looping, copied ones; their length."""
        return [Score(**score) for score in self.record.get("health", ())]

    @property
    def why_no_scores(self) -> str:
        """Why a finished run has no scores, for people."""
        counts = self.record["counts"]
        if counts["skipped"] == counts["examples"]:
            return "every example was skipped"
        if not counts["scored"]:
            return "the data has no references"
        return "they are not defined on these examples" if self.record.get("metrics") else "no metric was asked for"

    @property
    def samples(self) -> list[Sample]:
        """The samples, in the order of the data.

        Raises:
            RunError: the file is damaged, or a finished run lacks some.
        """
        samples = sorted(read_samples(self.path), key=lambda sample: sample.index)
        expected = self.record["data"]["count"]
        if self.status == "finished" and len({sample.id for sample in samples}) != expected:
            raise RunError(f"{self.path / SAMPLES}: damaged (it holds {len(samples)} samples of {expected})")
        return samples


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of run.json.

    Raises:
        RunError: there is none, it is damaged, or written by a newer lmtasks.
    """
    file = path / RECORD
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except NotADirectoryError:
        raise RunError(f"{path}: no run folder but a file; name the folder that it is in") from None
    except FileNotFoundError:
        raise RunError(f"{path}: no run folder (it has no {RECORD})") from None
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error})") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{file}: damaged ({error})") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else None
        raise RunError(f"{file}: schema {found}, but this lmtasks reads schema {SCHEMA}; use the lmtasks that wrote it")
    return record


def write_record(path: Path, record: Mapping[str, object]) -> None:
    """Write run.json, whole or not at all.

    Raises:
        RunError: the disk is full or not to be written.
    """
    aside = path / f"{RECORD}.tmp"
    with _writing(path):
        text = json.dumps(record, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
        aside.write_text(text, encoding="utf-8", errors=ESCAPED)
        os.replace(aside, path / RECORD)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error}); what was finished before is kept") from error


def read_samples(path: Path) -> Iterator[Sample]:
    """Yield the samples of a run in the order they were finished.

    Raises:
        RunError: a line is damaged; names file and line.
    """
    file = path / SAMPLES
    if not file.is_file():
        return
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                values = json.loads(line.decode("utf-8"))
                values["references"] = tuple(values["references"])
                values["loglikelihoods"] = tuple(LogLikelihood(**item) for item in values.get("loglikelihoods", ()))
                yield Sample(**values)
            except (ValueError, TypeError, KeyError) as error:  # ValueError: no JSON, or no UTF-8
                raise RunError(f"{file}, line {number}: damaged ({error})") from error


def mend_samples(path: Path) -> None:
    """Cut off a last line that was only half written when the process was killed."""
    file = path / SAMPLES
    if not file.is_file():
        return
    content = file.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with file.open("r+b") as samples:
            samples.truncate(whole)


def append_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Add finished samples to samples.jsonl.

    Raises:
        RunError: the disk is full or not to be written.
    """
    with _writing(path):
        _write_lines(path / SAMPLES, "a", samples)


def rewrite_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write samples.jsonl anew, whole or not at all.

    Raises:
        RunError: the disk is full or not to be written.
    """
    aside = path / f"{SAMPLES}.tmp"
    with _writing(path):
        _write_lines(aside, "w", samples)
        os.replace(aside, path / SAMPLES)


def _write_lines(file: Path, mode: Literal["a", "w"], samples: Iterable[Sample]) -> None:
    with file.open(mode, encoding="utf-8", errors=ESCAPED) as lines:
        for sample in samples:
            values = {field.name: getattr(sample, field.name) for field in fields(sample)}
            for name in ("inputs", "meta", "cut"):
                values[name] = dict(values[name])
            values["loglikelihoods"] = [asdict(item) for item in sample.loglikelihoods]
            lines.write(json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def claim_folder(output_dir: Path, name: str, key: str | None) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """Give the folder for a run: an unfinished one with the same key and its record, or else a new one and None.

    While the folder is in use it is locked, so that another process with the same run takes a folder of its own.

    Args:
        output_dir: holds run folders; it is made if it is not there.
        name: of the run: task and model.
        key: of everything that could change an output; None: nothing is continued.

    Raises:
        RunError: the folder cannot be written.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        for path in _unfinished(output_dir, key) if key else ():
            lock = filelock.FileLock(path / LOCK)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                continue
            # Whoever held the lock until now may have finished the run since we looked.
            before = _read(path)
            if before and before["status"] != "finished":
                break
            lock.release()
        else:
            path, before = _new_folder(output_dir, name), None
            lock = filelock.FileLock(path / LOCK)
            lock.acquire(timeout=0)
    except OSError as error:
        raise RunError(
            f"{output_dir}: cannot write run folders here ({error}); choose another with --output-dir"
        ) from error
    try:
        yield path, before
    finally:
        if (record := _read(path)) and record["status"] == "finished":
            # Still held: nobody can come between. A folder that may be continued keeps its lock file.
            with suppress(OSError):  # Windows removes no open file
                (path / LOCK).unlink()
        lock.release()


def _read(path: Path) -> dict[str, Any] | None:
    """Return the record of a run; None for a folder of another version, or not ours: nothing to continue."""
    try:
        return read_record(path)
    except RunError:
        return None


def _unfinished(output_dir: Path, key: str) -> Iterator[Path]:
    for file in sorted(output_dir.glob(f"*/{RECORD}"), reverse=True):
        record = _read(file.parent)
        if record and record.get("key") == key and record.get("status") != "finished":
            yield file.parent


def _new_folder(output_dir: Path, name: str) -> Path:
    stem = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{name.replace('/', '-')}"
    number = 1
    while True:
        path = output_dir / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path
