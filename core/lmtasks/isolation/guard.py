"""Calls of plugin code: errors are translated, output goes to stderr, process state is restored."""

from __future__ import annotations

import importlib
import io
import os
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pluggy

from lmtasks.errors import LmtasksError, PluginError
from lmtasks.escaping import one_line
from lmtasks.isolation.process_state import ProcessState, saved_process_state

_CALLERS = tuple(
    f"{folder}{os.sep}"
    for folder in (Path(importlib.__file__).parent, Path(pluggy.__file__).parent, Path(__file__).parents[1])
)  # folders whose code is on the stack of every failing import or call
_FROZEN = "<frozen "
MAX_MESSAGE_LENGTH = 500
"""Characters of an error's message that are kept."""


class Guard:
    """Guards calls of plugin code that share one snapshot of the process state."""

    def __init__(self, state: ProcessState) -> None:
        """Create a guard that restores `state` after every call."""
        self._state = state

    @contextmanager
    def call(self, description: str, error_type: type[LmtasksError] = PluginError) -> Iterator[None]:
        """Run plugin code; whatever it raises, `sys.exit` included, becomes one error of lmtasks.

        Args:
            description: begins the message: 'plugin "titles" (lmtasks-titles 1.2.0) cannot be imported'.
            error_type: the class of the error.

        Raises:
            LmtasksError: of that class; an error that only core's own code raised passes unchanged.
        """
        try:
            try:
                with warnings.catch_warnings():
                    yield
            finally:
                self._state.restore()
        except KeyboardInterrupt:
            raise  # the user's, as far as can be known
        except BaseException as error:  # SystemExit, and what test libraries raise to skip
            if isinstance(error, LmtasksError) and all(_is_standard_library(file) for file, _ in _plugin_frames(error)):
                raise
            raise error_type(f"{description}: {cause(error)}") from error


@contextmanager
def guarded_batch() -> Iterator[Guard]:
    """Return a guard for many calls of plugin code, such as one for each example.

    The process state is saved once and restored after every call, so that no call sees what another has changed.
    """
    with redirect_stdout(_StderrWriter()), saved_process_state() as state:
        yield Guard(state)


@contextmanager
def guarded_call(description: str, error_type: type[LmtasksError] = PluginError) -> Iterator[None]:
    """Run plugin code; whatever it raises, `sys.exit` included, becomes one error of lmtasks.

    What the code prints goes to stderr, because stdout is for results. What it changes of the process (random seeds,
    locale, logging, torch's threads, ...) is restored. Out of reach: `os._exit`, and an import that never ends.

    Args:
        description: as for `Guard.call`.
        error_type: as for `Guard.call`.

    Raises:
        LmtasksError: as for `Guard.call`.
    """
    with guarded_batch() as guard, guard.call(description, error_type):
        yield


class _StderrWriter(io.TextIOBase):
    """A stream for plugin code that writes to stderr; closing it does not close stderr."""

    def __init__(self) -> None:
        self._stderr = sys.stderr

    def write(self, text: str) -> int:
        """Write text to stderr."""
        return self._stderr.write(text)

    def flush(self) -> None:
        """Flush stderr."""
        self._stderr.flush()


def cause(error: BaseException) -> str:
    """Return type and message of an error that plugin code raised, with the line of the plugin's file."""
    text = _message(error)
    frames = _plugin_frames(error)
    # A library that the plugin calls may have raised: the plugin's files are those beside the first one.
    plugin_frames = [frame for frame in frames if Path(frame[0]).parent == Path(frames[0][0]).parent]
    location = ""
    if plugin_frames and not _is_standard_library(plugin_frames[-1][0]):
        location = f" ({plugin_frames[-1][0]}, line {plugin_frames[-1][1]})"
    return f"{type(error).__name__}: {text}{location}" if text else f"{type(error).__name__}{location}"


def _plugin_frames(error: BaseException) -> list[tuple[str, int | None]]:
    """Return file and line of the calls that led to an error, without those of core, importlib, pluggy and evaluate."""
    evaluate = getattr(sys.modules.get("evaluate"), "__file__", None)  # calls its modules; is seldom imported
    callers = (*_CALLERS, _FROZEN, *([f"{Path(evaluate).parent}{os.sep}"] if evaluate else []))
    return [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(callers)
    ]


def _message(error: BaseException) -> str:
    try:
        return shortened(str(error))
    except BaseException:  # its __str__ may be plugin code too
        return "its own message could not be read"


def shortened(text: str) -> str:
    """Return a text in one line of bounded length, its control characters shown as escapes."""
    line = one_line(" ".join(text.split()))
    return line if len(line) <= MAX_MESSAGE_LENGTH else f"{line[:MAX_MESSAGE_LENGTH]}..."


def _is_standard_library(file: str) -> bool:
    """Return whether a file belongs to the standard library: a built-in such as `str.strip` was called wrongly."""
    return Path(file).parent == Path(sysconfig.get_path("stdlib"))
