"""What is said of a data file that is checked."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from lmtasks.errors import LmtasksError

Level = Literal["error", "warning", "note"]
"""An error is refused by `run`, `score` or `train`; a warning is probably a mistake; a note is good to know."""
COMMANDS = ("run", "score", "train")
SHOWN = 20
"""Errors of single rows that are listed; more of them are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """Something about a data file."""

    level: Level
    kind: str
    """A short name for programs, the same in every release: "repeated-example"."""
    message: str
    """One line, with the file and the first line that it holds for."""
    count: int = 1
    """How many rows it holds for."""
    refused_by: tuple[str, ...] = ()
    """Of an error: the commands that would refuse the file for it."""


@dataclass(slots=True)
class Diagnostics:
    """Remarks that are collected while a file is read, each of them once."""

    all: list[Diagnostic] = field(default_factory=list)
    errors: Counter[tuple[str, tuple[str, ...]]] = field(default_factory=Counter)
    """How many errors there are, by kind and the commands that refuse them."""

    def add(self, level: Level, kind: str, message: str, count: int = 1) -> None:
        """Add a warning or note."""
        diagnostic = Diagnostic(level=level, kind=kind, message=message, count=count)
        if diagnostic not in self.all:
            self.all.append(diagnostic)

    def error(self, kind: str, error: LmtasksError, refused_by: tuple[str, ...] = COMMANDS) -> None:
        """Add an error; beyond `SHOWN` of a kind they are counted alone."""
        self.errors[kind, refused_by] += 1
        if self.errors[kind, refused_by] <= SHOWN:
            self.all.append(Diagnostic(level="error", kind=kind, message=str(error), refused_by=refused_by))

    @contextmanager
    def of_errors(self, kind: str, refused_by: tuple[str, ...] = COMMANDS) -> Iterator[None]:
        """Add the error that ends what is within."""
        try:
            yield
        except LmtasksError as error:
            self.error(kind, error, refused_by)

    @contextmanager
    def of_log(self, name: str) -> Iterator[None]:
        """Add what is logged within, instead of logging it."""
        logger = logging.getLogger(name)
        handler, propagate = _Handler(self.add), logger.propagate
        logger.addHandler(handler)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.propagate = propagate

    def sorted(self) -> tuple[Diagnostic, ...]:
        """Return all remarks, errors first."""
        more = [
            Diagnostic(
                level="error",
                kind=kind,
                message=f"... and {count - SHOWN} more such errors",
                count=count - SHOWN,
                refused_by=refused_by,
            )
            for (kind, refused_by), count in self.errors.items()
            if count > SHOWN
        ]
        order = ("error", "warning", "note")
        return tuple(sorted([*self.all, *more], key=lambda diagnostic: order.index(diagnostic.level)))


class _Handler(logging.Handler):
    """Hands warnings to a function."""

    def __init__(self, add: Callable[[Level, str, str], None]) -> None:
        super().__init__(logging.WARNING)
        self._add = add

    def emit(self, record: logging.LogRecord) -> None:
        self._add("warning", "reading", record.getMessage())
