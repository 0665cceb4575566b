"""Runs: options, the run folder, running a task over its data, scoring outputs again, comparing runs."""

from lmtasks.runs.folder import Run, load_run

__all__ = ["Run", "load_run"]
