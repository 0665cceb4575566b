"""The command line as `lmtasks` starts it, for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What came of a command: its exit code and what it wrote."""

    code: int
    out: str
    err: str


Call = Callable[..., Outcome]


def one_line(outcome: Outcome) -> str:
    """Return what stderr says, which is one line, with nothing on stdout."""
    assert outcome.out == ""
    [line] = outcome.err.splitlines()
    return line
