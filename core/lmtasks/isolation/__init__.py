"""Isolation: the one way to call a plugin's code; what it changes of the process is restored."""

from lmtasks.isolation.guard import cause, guarded_call, shortened

__all__ = ["cause", "guarded_call", "shortened"]
