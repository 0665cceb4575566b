"""The run folder: run.json, what it says of a run, and how it is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmtasks.errors import RunError
from lmtasks.files import atomic_write
from lmtasks.paths import user_path
from lmtasks.runs.sample_file import ESCAPED, SAMPLES, read_samples
from lmtasks.runs.schema import check_record
from lmtasks.shape import parse_json
from lmtasks.task import Sample, Score

SCHEMA = 1
"""Of run.json and samples.jsonl; raised when a field changes its meaning or goes."""
RECORD = "run.json"
LARGEST_RECORD = 2**26
"""Bytes of run.json at most; the largest part is a training's losses, some 100 bytes a step."""


class OtherVersionError(RunError):
    """A run.json that was written by another version of lmtasks, or by something else."""


class Run:
    """A run folder, read: what was asked, what came out, what it scored."""

    def __init__(self, path: str | Path, record: dict[str, Any] | None = None) -> None:
        """Read the record of a run.

        Args:
            path: the run folder.
            record: what run.json is about to hold; None: read it.

        Raises:
            PathError: no folder can have this name.
            RunError: it is no run folder, its record is damaged, or one of a newer lmtasks.
        """
        self.path = user_path(path, "run folder")
        self.record = read_record(self.path) if record is None else record

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
            RunError: a line is damaged or of no example of the data, or a finished run lacks some.
        """
        expected = self.record["data"]["count"]
        samples = read_samples(self.path, count=expected)
        if self.status == "finished" and len(samples) != expected:
            raise RunError(
                f"{self.path / SAMPLES}: damaged (it holds {len(samples)} samples of {expected}); run it again"
            )
        return samples


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of run.json, checked.

    Raises:
        RunError: there is none, it is damaged, or written by a newer lmtasks.
    """
    file = path / RECORD
    try:
        if file.exists() and not file.is_file():
            raise RunError(f"{file}: not a file")
        if file.stat().st_size > LARGEST_RECORD:
            raise RunError(f"{file}: damaged (larger than {LARGEST_RECORD >> 20} MiB)")
        text = file.read_text(encoding="utf-8")
    except NotADirectoryError:
        raise RunError(f"{path}: no run folder but a file; name the folder that it is in") from None
    except FileNotFoundError:
        raise RunError(f"{path}: no run folder (it has no {RECORD})") from None
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error})") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{file}: damaged ({error})") from error
    try:
        record = parse_json(text)
    except ValueError as error:
        raise RunError(f"{file}: damaged ({error})") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else None
        raise OtherVersionError(
            f"{file}: schema {found}, but this lmtasks reads schema {SCHEMA}; use the lmtasks that wrote it"
        )
    try:
        check_record(record)
    except ValueError as error:
        raise RunError(f"{file}: damaged ({error})") from error
    return record


def write_record(path: Path, record: Mapping[str, object], *, sync: bool = True) -> None:
    """Write run.json, whole or not at all.

    Args:
        path: the run folder.
        record: what it will hold.
        sync: as for `atomic_write`.

    Raises:
        RunError: the disk is full or not to be written.
    """
    text = json.dumps(record, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    try:
        atomic_write(path / RECORD, text.encode("utf-8", ESCAPED), sync=sync)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error}); what was finished before is kept") from error
