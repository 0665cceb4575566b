"""What all kinds of data are read into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from lmtasks.errors import DataError

OnError = Callable[[DataError], None]
"""Gets what is wrong with one row of a file, so that the rest can be read."""


class Row(NamedTuple):
    """One record of a data set: column name to value, nested ones as they came."""

    where: str
    """For messages: "data.jsonl, line 3"."""
    number: int
    """Its place among the rows, from 1: the same in every file format."""
    values: Mapping[str, object]
