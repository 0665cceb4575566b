"""Misspells its hook, which would otherwise do nothing in silence."""

from lmtasks import hookimpl


@hookimpl
def register_task():
    return []
