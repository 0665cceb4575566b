"""Runs: options, the run folder, running a task over its data, scoring outputs again, comparing runs."""

from lmtasks.runs.folder import Run, load_run
from lmtasks.runs.options import RunOptions
from lmtasks.runs.rescore import ScoreOptions

__all__ = ["Run", "RunOptions", "ScoreOptions", "load_run"]
