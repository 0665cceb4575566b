"""samples.jsonl: one line for each finished example, checked when it is read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from lmtasks.errors import RunError
from lmtasks.files import atomic_append, atomic_write
from lmtasks.shape import ShapeError, check_shape, parse_json
from lmtasks.task import LogLikelihood, Sample

SAMPLES = "samples.jsonl"
ESCAPED = "backslashreplace"
"""What becomes of half a surrogate pair, wherever it comes from: an escape of JSON."""
LONGEST_LINE = 2**28
"""Bytes of a line at most; a file without line ends is not read into memory as a whole."""


def read_samples(path: Path, *, count: int) -> list[Sample]:
    """Return the samples of a run folder in the order of the data; none where nothing was finished yet.

    Args:
        path: the run folder.
        count: how many examples the data has.

    Raises:
        RunError: a line is damaged, stands twice, or is of no example of the data; names file and line.
    """
    return sorted((sample for _, sample in numbered_samples(path, count=count)), key=lambda sample: sample.index)


def numbered_samples(path: Path, *, count: int) -> list[tuple[int, Sample]]:
    """Return the samples of a run folder with the number of their line, in the order they were finished.

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
            for number, line in enumerate(iter(lambda: lines.readline(LONGEST_LINE), b""), start=1):
                try:
                    sample = _sample(line, count)
                    if (same := indexes.setdefault(sample.index, number)) != number:
                        raise ShapeError(f"the index {sample.index} stands in line {same} too")
                    if (same := ids.setdefault(sample.id, number)) != number:
                        raise ShapeError(f"the id of line {same} stands here too")
                except ValueError as error:  # no JSON, no UTF-8, or not a sample
                    raise RunError(f"{file}, line {number}: damaged ({error})") from error
                samples.append((number, sample))
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error})") from error
    return samples


def _sample(line: bytes, count: int) -> Sample:
    """Return the sample of a line.

    Raises:
        ValueError: it is none, or of no example of the data.
    """
    if len(line) == LONGEST_LINE:
        raise ShapeError(f"longer than {LONGEST_LINE >> 20} MiB")
    values = parse_json(line.decode("utf-8"))
    check_shape(values, Sample)
    sample = Sample(
        **{
            **values,
            "references": tuple(values["references"]),
            "loglikelihoods": tuple(LogLikelihood(**item) for item in values.get("loglikelihoods", ())),
        }
    )
    _refuse_negative(values, "")
    _refuse_negative(values.get("cut", {}), "cut.")
    for at, likelihood in enumerate(values.get("loglikelihoods", ())):
        _refuse_negative({name: likelihood[name] for name in ("tokens", "bytes")}, f"loglikelihoods[{at}].")
    if sample.index >= count:
        raise ShapeError(f"index: expected one of the {count} examples, 0 to {count - 1}, got {sample.index}")
    if len(sample.loglikelihoods) not in (0, len(sample.references)):
        raise ShapeError(
            f"loglikelihoods: expected one for each of the {len(sample.references)} references, got"
            f" {len(sample.loglikelihoods)}"
        )
    return sample


def _refuse_negative(values: Mapping[str, object], where: str) -> None:
    """Refuse whole numbers below 0: all those of a sample count something.

    Raises:
        ShapeError: names the first.
    """
    for name, value in values.items():
        if type(value) is int and value < 0:
            raise ShapeError(f"{where}{name}: expected a number of at least 0, got {value}")


def truncate_partial_line(path: Path) -> None:
    """Cut off a last line that was only half written when the process was killed.

    Raises:
        RunError: the file cannot be written.
    """
    file = path / SAMPLES
    if not file.is_file():
        return
    try:
        content = file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(file, whole)
    except OSError as error:
        raise _cannot_write(path, error) from error


def append_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Add finished samples to samples.jsonl, all of them or none.

    Raises:
        RunError: the disk is full or not to be written.
    """
    try:
        atomic_append(path / SAMPLES, _lines(samples))
    except OSError as error:
        raise _cannot_write(path, error) from error


def rewrite_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write samples.jsonl anew, whole or not at all.

    Raises:
        RunError: the disk is full or not to be written.
    """
    try:
        atomic_write(path / SAMPLES, _lines(samples))
    except OSError as error:
        raise _cannot_write(path, error) from error


def sync_samples(path: Path) -> None:
    """Wait until the disk has all samples: some say only then that they are full.

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
    lines = (json.dumps(_values(sample), ensure_ascii=False, allow_nan=False) for sample in samples)
    return b"".join(f"{line}\n".encode("utf-8", ESCAPED) for line in lines)


def _values(sample: Sample) -> dict[str, Any]:
    values = {field.name: getattr(sample, field.name) for field in fields(sample)}
    for name in ("inputs", "meta", "cut"):
        values[name] = dict(values[name])
    values["loglikelihoods"] = [asdict(item) for item in sample.loglikelihoods]
    return values


def _cannot_write(path: Path, error: OSError) -> RunError:
    return RunError(f"{path}: cannot be written ({error}); what was finished before is kept")
