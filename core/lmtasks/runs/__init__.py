"""Runs: options, the run folder, running a task over its data, scoring outputs again, comparing runs."""

from lmtasks.runs.folder import Run

__all__ = ["Run"]
