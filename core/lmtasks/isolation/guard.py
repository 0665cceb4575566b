"""Code of plugins, called so that it cannot hurt the rest: what it raises, prints and changes of the process."""

from __future__ import annotations

import importlib
import io
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pluggy

from lmtasks.errors import LmtasksError, PluginError
from lmtasks.escaping import one_line
from lmtasks.isolation.process_state import preserve_process_state

_MACHINERY = tuple(
    f"{folder}{os.sep}"
    for folder in (Path(importlib.__file__).parent, Path(pluggy.__file__).parent, Path(__file__).parents[1])
)  # folders whose code is on the stack of every failing import or call
_FROZEN = "<frozen "
LONGEST = 500
"""Characters of what an error says that are told."""


@contextmanager
def guarded_call(what: str, kind: type[LmtasksError] = PluginError) -> Iterator[None]:
    """Run a plugin's code; whatever it raises, `sys.exit` included, becomes one error of ours.

    What it prints goes to stderr, for stdout belongs to results. What it changes of the process (random seeds, locale,
    logging, threads of torch, ...) is put back. What is out of reach: `os._exit`, and an import that never ends.

    Args:
        what: begins the message: 'plugin "titles" (lmtasks-titles 1.2.0) cannot be imported'.
        kind: of the error.

    Raises:
        LmtasksError: of that kind; what core itself has to say passes as it is.
    """
    try:
        with preserve_process_state(), redirect_stdout(_ToStderr()):
            yield
    except KeyboardInterrupt:
        raise  # of the user, as far as anybody can tell
    except BaseException as error:  # SystemExit, and what test libraries raise to skip
        if isinstance(error, LmtasksError) and all(_of_python(file) for file, _ in _places(error)):
            raise  # nobody but core has raised it
        raise kind(f"{what}: {cause(error)}") from error


class _ToStderr(io.TextIOBase):
    """Where a plugin may print; closing it closes nothing else."""

    def __init__(self) -> None:
        self._stderr = sys.stderr

    def write(self, text: str) -> int:
        """Pass text on."""
        return self._stderr.write(text)

    def flush(self) -> None:
        """Pass on what is held back."""
        self._stderr.flush()


def cause(error: BaseException) -> str:
    """Return what was raised in a plugin, and where in its own files."""
    text = _message(error)
    frames = _places(error)
    # A library that it calls may have raised: its own files are those beside the first one.
    own = [frame for frame in frames if Path(frame[0]).parent == Path(frames[0][0]).parent]
    place = f" ({own[-1][0]}, line {own[-1][1]})" if own and not _of_python(own[-1][0]) else ""
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"


def _places(error: BaseException) -> list[tuple[str, int | None]]:
    """Return file and line of the calls that led to an error, but for those of core and of what imports and calls."""
    evaluate = getattr(sys.modules.get("evaluate"), "__file__", None)  # calls its modules; is seldom imported
    callers = (*_MACHINERY, _FROZEN, *([f"{Path(evaluate).parent}{os.sep}"] if evaluate else []))
    return [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(callers)
    ]


def _message(error: BaseException) -> str:
    try:
        return shortened(str(error))
    except BaseException:  # its __str__ is a plugin's code too
        return "its own message could not be read"


def shortened(text: str) -> str:
    """Return a text in one line of bounded length, its control characters shown as escapes."""
    line = one_line(" ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def _of_python(file: str) -> bool:
    """Tell whether a file belongs to the standard library: where a built-in such as `str.strip` was called wrongly."""
    return Path(file).parent == Path(sysconfig.get_path("stdlib"))
