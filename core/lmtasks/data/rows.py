"""A row of data, the same for all formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from lmtasks.errors import DataError

OnError = Callable[[DataError], None]
"""Called with the error of one row of a file, so that the rest can be read."""


class Row(NamedTuple):
    """One record of a data set: column name to value, nested values unchanged."""

    where: str
    """File and line for messages: "data.jsonl, line 3"."""
    number: int
    """Row number from 1, the same in every file format."""
    values: Mapping[str, object]
