"""Parts that several records share."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lmtasks.records.reading import Count, Day, Integer, Items, Record
from lmtasks.task import Score

Scalar = str | int | float | bool


class TaskRecord(Record):
    """The task, and where it came from."""

    name: str
    version: Integer
    plugin: str | None
    distribution: str | None
    distribution_version: str | None
    parameters: dict[str, Scalar]


class DataRecord(Record):
    """The data, by name and hash."""

    name: str
    split: str | None
    count: Count
    sha256: str
    file_sha256: str | None
    limit: Count | None
    columns: dict[str, str]
    language: str | None

    @property
    def label(self) -> str:
        """The name, and the split in parentheses where there is one."""
        return f"{self.name} ({self.split})" if self.split else self.name


class GitRecord(Record):
    """The checkout that the process was started in."""

    commit: str
    dirty: bool | None


class EnvironmentRecord(Record):
    """Versions and machine."""

    python: str
    platform: str
    cpu_count: Count | None
    packages: dict[str, str]
    git: GitRecord | None


class ChatTemplateRecord(Record):
    """How the chat template was rendered: its variables, and the date that it was given as today."""

    kwargs: dict[str, Any]
    date: Day | None


class ScoreRecord(Record):
    """A score; see `lmtasks.Score`."""

    name: str
    value: float
    unit: str
    signature: str
    higher_is_better: bool | None
    language: str | None
    n: Count
    low: float | None
    high: float | None

    @classmethod
    def of(cls, score: Score) -> ScoreRecord:
        """Return the record of a score."""
        return cls(**asdict(score))

    @property
    def score(self) -> Score:
        """The score as a metric returned it."""
        return Score(**self.to_json())


Scores = Items[ScoreRecord]
