"""One language model in memory, every NLP task a plugin.

The names below are the public interface. `run`, `score`, `compare` and others are imported on first use, so that
`import lmtasks` is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmtasks.errors import LmtasksError
from lmtasks.hookspecs import hookimpl
from lmtasks.task import (
    DataFile,
    DataFunction,
    Example,
    Field,
    Generate,
    HubDataset,
    LogLikelihood,
    Measurement,
    Metric,
    Parameter,
    Prompt,
    Sample,
    Score,
    ScoreSpec,
    Task,
)

if TYPE_CHECKING:
    from lmtasks.api import TrainedAdapter, as_evaluate, ask, compare, load_model, run, score, train
    from lmtasks.options import RunOptions, ScoreOptions, TrainOptions
    from lmtasks.runs import Run, load_run

__all__ = [
    "DataFile",
    "DataFunction",
    "Example",
    "Field",
    "Generate",
    "HubDataset",
    "LmtasksError",
    "LogLikelihood",
    "Measurement",
    "Metric",
    "Parameter",
    "Prompt",
    "Run",
    "RunOptions",
    "Sample",
    "Score",
    "ScoreSpec",
    "ScoreOptions",
    "Task",
    "TrainOptions",
    "TrainedAdapter",
    "as_evaluate",
    "ask",
    "compare",
    "hookimpl",
    "load_model",
    "load_run",
    "run",
    "score",
    "train",
]

_LATE = {
    **dict.fromkeys(
        ("TrainedAdapter", "as_evaluate", "ask", "compare", "load_model", "run", "score", "train"), "lmtasks.api"
    ),
    **dict.fromkeys(("Run", "load_run"), "lmtasks.runs"),
    **dict.fromkeys(("RunOptions", "ScoreOptions", "TrainOptions"), "lmtasks.options"),
}


def __getattr__(name: str) -> object:
    """Import what only users of the whole package need, on first use."""
    if name not in _LATE:
        raise AttributeError(f"module 'lmtasks' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATE[name]), name)
