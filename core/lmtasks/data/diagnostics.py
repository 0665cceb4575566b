"""Diagnostics of a data file: errors, warnings and notes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from lmtasks.errors import LmtasksError

Level = Literal["error", "warning", "note"]
"""error: `run`, `score` or `train` would refuse the file; warning: probably a mistake; note: for information."""
COMMANDS = ("run", "score", "train")
MAX_LISTED = 20
"""Number of errors of one kind that are listed; further ones are only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One error, warning or note about a data file."""

    level: Level
    kind: str
    """Short name for programs, the same in every release: "repeated-example"."""
    message: str
    """One line that names the file and the first line concerned."""
    count: int = 1
    """Number of rows concerned."""
    refused_by: tuple[str, ...] = ()
    """Commands that would refuse the file for this error; empty for warnings and notes."""


@dataclass(slots=True)
class Diagnostics:
    """Diagnostics collected while a file is read, each of them once."""

    all: list[Diagnostic] = field(default_factory=list)
    errors: Counter[tuple[str, tuple[str, ...]]] = field(default_factory=Counter)
    """Number of errors by kind and the commands that refuse them."""

    def add(self, level: Level, kind: str, message: str, count: int = 1) -> None:
        """Add a warning or note."""
        diagnostic = Diagnostic(level=level, kind=kind, message=message, count=count)
        if diagnostic not in self.all:
            self.all.append(diagnostic)

    def error(self, kind: str, error: LmtasksError, refused_by: tuple[str, ...] = COMMANDS) -> None:
        """Add an error; beyond `MAX_LISTED` of a kind they are only counted."""
        self.errors[kind, refused_by] += 1
        if self.errors[kind, refused_by] <= MAX_LISTED:
            self.all.append(Diagnostic(level="error", kind=kind, message=str(error), refused_by=refused_by))

    @contextmanager
    def collect_error(self, kind: str, refused_by: tuple[str, ...] = COMMANDS) -> Iterator[None]:
        """Add an error that is raised in the block instead of raising it."""
        try:
            yield
        except LmtasksError as error:
            self.error(kind, error, refused_by)

    @contextmanager
    def collect_log(self, name: str) -> Iterator[None]:
        """Add warnings that are logged in the block instead of logging them."""
        logger = logging.getLogger(name)
        handler, propagate = _CollectWarnings(self.add), logger.propagate
        logger.addHandler(handler)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.propagate = propagate

    def sorted(self) -> tuple[Diagnostic, ...]:
        """Return all diagnostics, errors first."""
        more = [
            Diagnostic(
                level="error",
                kind=kind,
                message=f"... and {count - MAX_LISTED} more such errors",
                count=count - MAX_LISTED,
                refused_by=refused_by,
            )
            for (kind, refused_by), count in self.errors.items()
            if count > MAX_LISTED
        ]
        order = ("error", "warning", "note")
        return tuple(sorted([*self.all, *more], key=lambda diagnostic: order.index(diagnostic.level)))


class _CollectWarnings(logging.Handler):
    """Passes warnings to a function."""

    def __init__(self, add: Callable[[Level, str, str], None]) -> None:
        super().__init__(logging.WARNING)
        self._add = add

    def emit(self, record: logging.LogRecord) -> None:
        self._add("warning", "reading", record.getMessage())
