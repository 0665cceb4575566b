"""A request for data, and the data set that is loaded for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from lmtasks.errors import DataError
from lmtasks.options import DataOptions
from lmtasks.task import Example

EVAL_SPLITS = ("test", "devtest", "validation", "dev", "train")
"""Splits to evaluate on by default: the first of these that the data has."""


@dataclass(frozen=True, kw_only=True)
class DataRequest(DataOptions):
    """The data that a user asks for; the task has a default for each part."""

    ignore_unknown_columns: bool = False
    """Whether to ignore entries of `columns` that the data lacks, as they were meant for other data."""
    prefer: tuple[str, ...] = EVAL_SPLITS
    """Splits to choose from if none is named, best first."""
    require_inputs: bool = True
    """Whether every example needs the required inputs; scoring predictions needs only references."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The examples of one split and their origin."""

    name: str
    split: str | None
    """None: the data has no splits."""
    examples: tuple[Example, ...]
    file_sha256: str | None
    """SHA-256 of the file; None: the data is not a file."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """The user's mapping of field to column; it applies to the other splits too."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the examples, the same for the same data in another file format."""
        digest = hashlib.sha256()
        for example in self.examples:
            record = {
                "id": example.id,
                "inputs": dict(example.inputs),
                "references": list(example.references),
                "target": example.target,
                "language": example.language,
            }
            digest.update(json.dumps(record, sort_keys=True).encode() + b"\n")
        return digest.hexdigest()


class NoSplitError(DataError):
    """The data has no split of that name."""
