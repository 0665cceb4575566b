"""One language model in memory, every NLP task a plugin.

A plugin needs the names below and no others. `run`, `ask`, `load_model` and their company are read when first
used, so that importing lmtasks stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmtasks.errors import LmtasksError
from lmtasks.hookspecs import hookimpl
from lmtasks.task import (
    DataFile,
    Example,
    Field,
    Generation,
    Measurement,
    Metric,
    Prompt,
    Sample,
    Score,
    ScoreKind,
    Task,
)

if TYPE_CHECKING:
    from lmtasks.api import ask, load_model, run
    from lmtasks.runs import Run, RunOptions

__all__ = [
    "DataFile",
    "Example",
    "Field",
    "Generation",
    "LmtasksError",
    "Measurement",
    "Metric",
    "Prompt",
    "Run",
    "RunOptions",
    "Sample",
    "Score",
    "ScoreKind",
    "Task",
    "ask",
    "hookimpl",
    "load_model",
    "run",
]

_LATE = {
    "ask": "lmtasks.api",
    "load_model": "lmtasks.api",
    "run": "lmtasks.api",
    "Run": "lmtasks.runs",
    "RunOptions": "lmtasks.runs",
}


def __getattr__(name: str) -> object:
    """Import what only users of the whole package need, on first use."""
    if name not in _LATE:
        raise AttributeError(f"module 'lmtasks' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATE[name]), name)
