"""What is asked of a data set, and what comes of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from lmtasks.errors import DataError
from lmtasks.options import DataOptions
from lmtasks.task import Example

EVAL_SPLITS = ("test", "devtest", "validation", "dev", "train")
"""Where no split is asked for, the first of these that the data has is scored."""


@dataclass(frozen=True, kw_only=True)
class DataRequest(DataOptions):
    """The examples that a user asks for, and how they are chosen where the options leave it open."""

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
