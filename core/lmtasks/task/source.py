"""Where examples come from. Data is read when asked for, not before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lmtasks.task.sample import Example


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """A data set in a file: JSONL, CSV, TSV or Parquet. A column "split" divides it, where it has one.

    All but Parquet may be compressed, with .gz, .zst, .bz2 or .xz at the end of the name.
    """

    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field name (or "references", "id", "language") to column name, where the file uses others than the task knows."""
    license: str | None = None
    """Under which terms the data may be used, best as an SPDX identifier: "CC-BY-4.0"."""
    language: str | None = None
    """Of the references, a BCP 47 tag, where neither rows nor flags say."""

    def __post_init__(self) -> None:
        """Take text for a path."""
        object.__setattr__(self, "path", Path(self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFunction:
    """A data set that a function reads."""

    read: Callable[[str], Iterable[Example]]
    """From the split's name to its examples; nothing where there is no such split."""
    license: str | None = None
    """As in DataFile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubDataset:
    """A data set of the Hugging Face hub (or in a local folder of the same layout) that holds plain files."""

    id: str
    revision: str | None = None
    """A commit, so that the same data comes again; None: the newest."""
    config: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    """As in DataFile."""
    license: str | None = None
    """As in DataFile."""
    language: str | None = None
    """As in DataFile."""

    def __str__(self) -> str:
        """Return it as `--data` takes it."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"hub:{self.id}{revision}{f'#{self.config}' if self.config else ''}"


DataSource = DataFile | HubDataset | DataFunction
"""Where examples come from. Data is read when asked for, not before."""
