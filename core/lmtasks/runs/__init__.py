"""Runs: options, the run folder, and running a task over its data."""

from lmtasks.runs.folder import Run
from lmtasks.runs.options import RunOptions

__all__ = ["Run", "RunOptions"]
