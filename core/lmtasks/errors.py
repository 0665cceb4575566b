"""Errors that a user can cause: one family, which the command line prints in one line each.

A message says what was wrong, where, what was expected and what to do. Anything else that is raised is a bug and
keeps its traceback. Messages name options with `option`, as Python has them; the command line writes them as flags.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar


class LmtasksError(Exception):
    """Base class of all errors that a user can cause and fix."""


class DataError(LmtasksError):
    """A data file, row or field is not what the task needs; the message names file, line and field."""


class PathError(LmtasksError):
    """A path cannot name a file: too long, unknown home folder, no permission for a parent folder."""


class UnknownNameError(LmtasksError):
    """A task, metric, model, prompt or data set does not exist; the message offers the nearest names."""


class PluginError(LmtasksError):
    """A plugin cannot be imported or returns something invalid; the message names plugin and version."""


class PromptError(LmtasksError):
    """An example cannot be turned into a prompt that fits the model."""


class MetricError(LmtasksError):
    """A metric cannot be computed: a package is missing, or it does not support this data."""


class ModelError(LmtasksError):
    """A model cannot be downloaded, verified, converted or loaded."""


class RunError(LmtasksError):
    """A run folder cannot be written, read or resumed."""


class AdapterError(LmtasksError):
    """An adapter cannot be read, or does not belong to this model."""


class TrainingError(LmtasksError):
    """A training cannot start, resume or continue."""


class OutputError(LmtasksError):
    """Results cannot be written to stdout: the disk is full, or stdout is closed."""


class UsageError(LmtasksError):
    """Options contradict each other or are out of range; exit code 2 on the command line."""


class DeprecatedWarning(FutureWarning):
    """A deprecated part of the plugin interface; the message says since when, and what to use instead."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Return the error for an unknown name, with the nearest known names.

    Args:
        kind: kind of the name, in the words of a user: "task", 'prompt of task "qa"'.
        name: the unknown name.
        known: all valid names.
    """
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or difflib.get_close_matches(name.lower(), known)
    if nearest:
        hint = f"Did you mean {' or '.join(nearest)}?"
    elif known:
        hint = f"Known: {', '.join(known)}."
    else:
        hint = "There are none."
    # The name may come from a file: it must not contain line breaks or control characters.
    noun, owner = re.split(r"(?= of | that |$)", kind, maxsplit=1)
    shown = name if name.isprintable() else repr(name)[1:-1]
    return UnknownNameError(f'unknown {noun} "{shown}"{owner}. {hint}')


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
