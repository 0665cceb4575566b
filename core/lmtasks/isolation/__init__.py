"""Isolation: the only way to call plugin code; what the code changes of the process is restored."""

from lmtasks.isolation.guard import Guard, cause, guarded_batch, guarded_call, shortened

__all__ = ["Guard", "cause", "guarded_batch", "guarded_call", "shortened"]
