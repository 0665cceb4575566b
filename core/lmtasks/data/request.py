"""What is asked of a data set, and what comes of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lmtasks.errors import DataError
from lmtasks.task import Example

EVAL_SPLITS = ("test", "devtest", "validation", "dev", "train")
"""Where no split is asked for, the first of these that the data has is scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRequest:
    """What a user asks for; everything has a default in the task."""

    data: str | Path | None = None
    """A named set of the task, a file, or hub:ID[@REVISION][#CONFIG]; None: the task's demo."""
    split: str | None = None
    """None: the first of `prefer` that the data has."""
    limit: int | None = None
    """At most this many examples, the first ones."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field to column, where the data uses other names than the task knows."""
    language: str | None = None
    """Of all references, over what the data and the task say."""
    ignore_unknown_columns: bool = False
    """Whether `columns` were meant for other data, and count only where this has them."""
    prefer: tuple[str, ...] = EVAL_SPLITS
    require_inputs: bool = True
    """Whether every example needs what its task requires; only references are scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The examples of one split, and where they come from."""

    name: str
    split: str | None
    """None: the set has no splits."""
    examples: tuple[Example, ...]
    file_sha256: str | None
    """Of the file's bytes, where there is one."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """As the user mapped them; they hold for its other splits too."""

    @property
    def sha256(self) -> str:
        """The hash of the examples themselves, so that the same data in another file format is known again."""
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
