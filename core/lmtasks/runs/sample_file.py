"""samples.jsonl: one line for each finished example, checked when it is read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lmtasks.errors import RunError
from lmtasks.files import atomic_append, atomic_write
from lmtasks.records.sample import read_sample, sample_line
from lmtasks.records.strict_json import RecordError
from lmtasks.task import Sample

SAMPLES = "samples.jsonl"
ESCAPED = "backslashreplace"
"""How half a surrogate pair is encoded: as an escape of JSON."""
MAX_LINE_BYTES = 2**28
"""Bytes of a line at most; a file without line ends is not read into memory as a whole."""


def read_samples(path: Path, *, count: int) -> list[Sample]:
    """Return the samples of a run folder in the order of the data; none where nothing was finished yet.

    Args:
        path: the run folder.
        count: number of examples in the data.

    Raises:
        RunError: a line is damaged, repeated, or of no example of the data; names file and line.
    """
    return sorted((sample for _, sample in numbered_samples(path, count=count)), key=lambda sample: sample.index)


def numbered_samples(path: Path, *, count: int) -> list[tuple[int, Sample]]:
    """Return the samples of a run folder with their line numbers, in the order they were finished.

    Args and errors are as for `read_samples`.
    """
    file = path / SAMPLES
    samples: list[tuple[int, Sample]] = []
    indexes: dict[int, int] = {}
    ids: dict[str, int] = {}
    try:
        if not file.exists():
            return []
        if not file.is_file():
            raise RunError(f"{file}: not a file")
        with file.open("rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES), b""), start=1):
                try:
                    sample = _sample(line, count)
                    if (first := indexes.setdefault(sample.index, number)) != number:
                        raise RecordError(f"the index {sample.index} occurs in line {first} too")
                    if (first := ids.setdefault(sample.id, number)) != number:
                        raise RecordError(f"the id of line {first} occurs here too")
                except ValueError as error:  # not JSON, not UTF-8, or not a sample
                    raise RunError(f"{file}, line {number}: damaged ({error})") from error
                samples.append((number, sample))
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error})") from error
    return samples


def _sample(line: bytes, count: int) -> Sample:
    """Return the sample of a line.

    Raises:
        ValueError: the line is not a sample, or a sample of no example of the data.
    """
    if len(line) == MAX_LINE_BYTES:
        raise RecordError(f"longer than {MAX_LINE_BYTES >> 20} MiB")
    sample = read_sample(line.decode("utf-8"))
    if sample.index >= count:
        raise RecordError(f"index: expected one of the {count} examples, 0 to {count - 1}, got {sample.index}")
    return sample


def truncate_partial_line(path: Path) -> None:
    """Remove a last line that was only half written when the process was killed.

    Raises:
        RunError: the file cannot be written.
    """
    file = path / SAMPLES
    if not file.is_file():
        return
    try:
        content = file.read_bytes()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            os.truncate(file, complete)
    except OSError as error:
        raise _cannot_write(path, error) from error


def append_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Append finished samples to samples.jsonl, all of them or none.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    try:
        atomic_append(path / SAMPLES, _lines(samples))
    except OSError as error:
        raise _cannot_write(path, error) from error


def rewrite_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Replace samples.jsonl, whole or not at all.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    try:
        atomic_write(path / SAMPLES, _lines(samples))
    except OSError as error:
        raise _cannot_write(path, error) from error


def sync_samples(path: Path) -> None:
    """Wait until the disk has all samples: some disks report only then that they are full.

    Raises:
        RunError: the disk is full.
    """
    if not (path / SAMPLES).exists():
        return
    try:
        with (path / SAMPLES).open("r+b") as samples:
            os.fsync(samples.fileno())
    except OSError as error:
        raise _cannot_write(path, error) from error


def _lines(samples: Iterable[Sample]) -> bytes:
    return b"".join(f"{sample_line(sample)}\n".encode("utf-8", ESCAPED) for sample in samples)


def _cannot_write(path: Path, error: OSError) -> RunError:
    return RunError(f"{path}: cannot be written ({error}); what was finished before is kept")
