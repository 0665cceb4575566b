"""Code of plugins, called so that it cannot hurt the rest: what it raises, prints and changes of the process."""

from __future__ import annotations

import importlib
import locale
import logging
import os
import random
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

import pluggy

from lmtasks.errors import LmtasksError, PluginError

_MACHINERY = tuple(
    f"{Path(file).parent}{os.sep}" for file in (importlib.__file__, pluggy.__file__, __file__)
)  # folders whose code is on the stack of every failing import or call
_FROZEN = "<frozen "


@contextmanager
def foreign(what: str, kind: type[LmtasksError] = PluginError) -> Iterator[None]:
    """Run a plugin's code; whatever it raises, `sys.exit` included, becomes one error of ours.

    What it prints goes to stderr, for stdout belongs to results. What it changes of the process (random seeds, locale,
    logging, threads of torch) is put back. What is out of reach: `os._exit`, an import that never ends, and what
    compiled code writes.

    Args:
        what: begins the message: 'plugin "titles" (lmtasks-titles 1.2.0) cannot be imported'.
        kind: of the error.

    Raises:
        LmtasksError: of that kind; what core itself has to say passes as it is.
    """
    put_back = [keep() for keep in _KEPT]
    try:
        with redirect_stdout(sys.stderr):
            yield
    except LmtasksError:
        raise
    except (Exception, SystemExit) as error:
        raise kind(f"{what}: {cause(error)}") from error
    finally:
        for back in put_back:
            back()


def cause(error: BaseException) -> str:
    """Return what was raised in a plugin, and where in its own files."""
    text = " ".join(str(error).split())
    frames = [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((*_MACHINERY, _FROZEN))
    ]
    # A library that it calls may have raised: its own files are those beside the first one.
    own = [frame for frame in frames if Path(frame[0]).parent == Path(frames[0][0]).parent]
    place = f" ({own[-1][0]}, line {own[-1][1]})" if own and not _of_python(own[-1][0]) else ""
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"


def _of_python(file: str) -> bool:
    """Tell whether a file belongs to the standard library: where a built-in such as `str.strip` was called wrongly."""
    return Path(file).parent == Path(sysconfig.get_path("stdlib"))


def _keep_random() -> Callable[[], None]:
    state = random.getstate()
    return lambda: random.setstate(state)


def _keep_numpy() -> Callable[[], None]:
    if (numpy := sys.modules.get("numpy")) is None:
        return lambda: None
    state = numpy.random.get_state()
    return lambda: numpy.random.set_state(state)


def _keep_torch() -> Callable[[], None]:
    if (torch := sys.modules.get("torch")) is None or not hasattr(torch, "get_num_threads"):
        return lambda: None
    state, threads = torch.get_rng_state(), torch.get_num_threads()

    def back() -> None:
        torch.set_rng_state(state)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)

    return back


def _keep_locale() -> Callable[[], None]:
    before = locale.setlocale(locale.LC_ALL)

    def back() -> None:
        if locale.setlocale(locale.LC_ALL) != before:
            with suppress(locale.Error):
                locale.setlocale(locale.LC_ALL, before)

    return back


def _keep_logging() -> Callable[[], None]:
    loggers = [logging.getLogger(), logging.getLogger("lmtasks")]
    states = [(logger, logger.level, logger.handlers[:], logger.disabled, logger.propagate) for logger in loggers]
    disabled = logging.root.manager.disable

    def back() -> None:
        for logger, level, handlers, off, propagate in states:
            logger.setLevel(level)
            logger.handlers[:] = handlers
            logger.disabled, logger.propagate = off, propagate
        logging.disable(disabled)

    return back


def _keep_folder() -> Callable[[], None]:
    before = os.getcwd()
    return lambda: os.chdir(before)


_KEPT = (_keep_random, _keep_numpy, _keep_torch, _keep_locale, _keep_logging, _keep_folder)
"""Each remembers something of the process, and returns what puts it back."""
