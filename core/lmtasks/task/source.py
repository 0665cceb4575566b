"""Sources of examples. Data is read on request, not when a source is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lmtasks.task.sample import Example


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """A data set in a file: JSONL, CSV, TSV or Parquet. A column "split", if there is one, divides it.

    All but Parquet may be compressed, with .gz, .zst, .bz2 or .xz at the end of the name.
    """

    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field name (or "references", "id", "language") to column name, for columns that the task does not know."""
    license: str | None = None
    """License of the data, best as an SPDX identifier: "CC-BY-4.0"."""
    language: str | None = None
    """Language of the references as a BCP 47 tag, if neither rows nor options state one."""

    def __post_init__(self) -> None:
        """Convert text to a path."""
        object.__setattr__(self, "path", Path(self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFunction:
    """A data set that a function reads."""

    read: Callable[[str], Iterable[Example]]
    """Returns the examples of a split, given its name; none if there is no such split."""
    license: str | None = None
    """As in DataFile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubDataset:
    """A data set of the Hugging Face hub (or in a local folder of the same layout) that holds plain files."""

    id: str
    revision: str | None = None
    """A commit, so that the data stays the same; None: the newest."""
    config: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    """As in DataFile."""
    license: str | None = None
    """As in DataFile."""
    language: str | None = None
    """As in DataFile."""

    def __str__(self) -> str:
        """Return the form that `--data` accepts."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"hub:{self.id}{revision}{f'#{self.config}' if self.config else ''}"


DataSource = DataFile | HubDataset | DataFunction
"""Any source of examples."""
