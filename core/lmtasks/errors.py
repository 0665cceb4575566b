"""Errors that a user can cause: one family, which the command line prints in one line each.

A message says what was wrong, where, what was expected and what to do. Anything else that is raised is a bug and
keeps its traceback. Messages name options with `option`, as Python has them; the command line writes them as flags.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar


class LmtasksError(Exception):
    """The parent of all errors that a user can cause and mend."""


class DataError(LmtasksError):
    """A data file, row or field is not what the task needs; the message names file, line and field."""


class PathError(LmtasksError):
    """A path that a user wrote cannot name a file: too long, an unknown home folder, no permission on the way."""


class UnknownNameError(LmtasksError):
    """A task, metric, model, prompt or data set of that name does not exist; the message offers the nearest."""


class PluginError(LmtasksError):
    """A plugin could not be imported or returned something wrong; the message names plugin and version."""


class PromptError(LmtasksError):
    """An example cannot be turned into a prompt that fits the model."""


class MetricError(LmtasksError):
    """A metric cannot be computed: a package it needs is missing, or it cannot take this data."""


class ModelError(LmtasksError):
    """A model could not be fetched, verified, converted or loaded."""


class RunError(LmtasksError):
    """A run folder cannot be written, read or continued."""


class AdapterError(LmtasksError):
    """An adapter cannot be read, or does not belong to this model."""


class TrainingError(LmtasksError):
    """A training cannot be begun, continued or go on."""


class OutputError(LmtasksError):
    """Results cannot be written to stdout: the disk behind it is full, or it is closed."""


class UsageError(LmtasksError):
    """Settings that contradict each other or are out of range; exit code 2 on the command line."""


class DeprecatedWarning(FutureWarning):
    """A part of the plugin interface that will go; says since when, and what to use instead."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Make the error for a name that does not exist, with the nearest known ones.

    Args:
        kind: what was looked for, as the user would say it: "task", "metric".
        name: what the user wrote.
        known: every name that would have been right.
    """
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or difflib.get_close_matches(name.lower(), known)
    if nearest:
        hint = f"Did you mean {' or '.join(nearest)}?"
    elif known:
        hint = f"Known: {', '.join(known)}."
    else:
        hint = "There is none at all."
    # It may come from a file: no line break and nothing that steers a terminal.
    shown = name if name.isprintable() else repr(name)[1:-1]
    return UnknownNameError(f'no {kind} is called "{shown}". {hint}')


def keyword(name: str, value: object = None) -> str:
    """Return an option as a Python caller writes it: `dtype`, or `dtype='float32'`."""
    if value is None:
        return name
    return f"{name}={dict(value) if isinstance(value, Mapping) else value!r}"


_spelling: ContextVar[Callable[[str, object], str]] = ContextVar("spelling", default=keyword)


def option(name: str, value: object = None) -> str:
    """Return an option for a message, as whoever reads it writes it.

    Args:
        name: the field or parameter in Python: "max_new_tokens".
        value: what to set it to; None: the option alone is named.

    Returns:
        In Python `max_new_tokens=64`; within a command `--max-new-tokens 64`.
    """
    return _spelling.get()(name, value)


@contextmanager
def spell_options(spelling: Callable[[str, object], str]) -> Iterator[None]:
    """Let `option` return what this function does, in the block and all that it calls."""
    token = _spelling.set(spelling)
    try:
        yield
    finally:
        _spelling.reset(token)
