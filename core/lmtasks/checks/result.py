"""The result of a check, and the way to make one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from lmtasks.errors import LmtasksError
from lmtasks.isolation import guarded_call

Status = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """A check of a task or plugin, and whether it passed."""

    task: str
    """Name of the task, or of the plugin if the check concerns all of it."""
    check: str
    """The condition that is checked."""
    status: Status
    detail: str = ""
    """The problem and its remedy, or why the check was skipped."""


class SkippedCheckError(LmtasksError):
    """A check cannot be made; says why."""


def run_check(task: str, check: str, label: str, function: Callable[[], Iterator[str] | None]) -> CheckResult:
    """Return the result of one check; an error of any kind is a failed check.

    Args:
        task: as in CheckResult.
        check: as in CheckResult.
        label: begins the message of an error that a plugin's code raises.
        function: yields problems, of which the first is reported, or raises an error.
    """
    try:
        with guarded_call(label):
            problem = next(iter(function() or ()), None)
        status: Status = "ok" if problem is None else "failed"
    except SkippedCheckError as reason:
        problem, status = str(reason), "skipped"
    except LmtasksError as error:
        problem, status = str(error), "failed"
    return CheckResult(task=task, check=check, status=status, detail=problem or "")
