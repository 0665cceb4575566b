"""What a plugin's code may change of the process, and how that is put back."""

from __future__ import annotations

import gc
import importlib.util
import locale
import logging
import os
import random
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Restore = Callable[[], object]
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def preserve_process_state() -> Iterator[None]:
    """Put back what the code within changes: random seeds, threads and modes of torch, locale, logging, environment...

    What it adds to the path of imports stays, at the end: it may import from there later, and hides nothing of others.
    """
    put_back: list[Restore] = [keep() for keep in _OF_PYTHON]
    newly = _ImportHook(put_back)
    for name, keep in _OF_MODULES.items():
        if name in sys.modules:
            put_back.append(keep(sys.modules[name]))
    sys.meta_path.insert(0, newly)
    try:
        with warnings.catch_warnings():
            yield
    finally:
        with suppress(ValueError):
            sys.meta_path.remove(newly)
        for back in put_back:
            back()


class _ImportHook(MetaPathFinder):
    """Looks at numpy and torch once they are imported, before a plugin that imports them first has set anything."""

    def __init__(self, put_back: list[Restore]) -> None:
        self._put_back = put_back
        self._looking = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _OF_MODULES or self._looking:
            return None
        self._looking = True  # what follows comes by here again
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._looking = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def then_look(module: ModuleType) -> None:
                execute(module)
                self._put_back.append(_OF_MODULES[fullname](module))

            spec.loader.exec_module = then_look  # type: ignore[method-assign]
        return spec


def _save_random() -> Restore:
    state = random.getstate()
    return lambda: random.setstate(state)


def _save_locale() -> Restore:
    before = locale.setlocale(locale.LC_ALL)

    def back() -> None:
        if locale.setlocale(locale.LC_ALL) != before:
            with suppress(locale.Error):
                locale.setlocale(locale.LC_ALL, before)

    return back


def _save_logging() -> Restore:
    ours = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "lmtasks"]
    loggers = [logging.getLogger(), *map(logging.getLogger, ours)]
    states = [(logger, logger.level, logger.handlers[:], logger.disabled, logger.propagate) for logger in loggers]
    disabled, kind = logging.root.manager.disable, logging.getLoggerClass()

    def back() -> None:
        for logger, level, handlers, off, propagate in states:
            if logger.level != level:
                logger.setLevel(level)
            logger.handlers[:] = handlers
            logger.disabled, logger.propagate = off, propagate
        if logging.root.manager.disable != disabled:
            logging.disable(disabled)
        logging.setLoggerClass(kind)

    return back


def _save_streams() -> Restore:
    before = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr", "excepthook")}

    def back() -> None:
        for name, value in before.items():
            setattr(sys, name, value)

    return back


def _save_environment() -> Restore:
    before = dict(os.environ)

    def back() -> None:
        if os.environ != before:
            for name in set(os.environ) - set(before):
                del os.environ[name]
            os.environ.update(before)

    return back


def _save_import_path() -> Restore:
    before = sys.path[:]

    def back() -> None:
        if sys.path != before:
            sys.path[:] = [*before, *(folder for folder in sys.path if folder not in before)]

    return back


def _save_folder() -> Restore:
    before = _folder()

    def back() -> None:
        if before and _folder() != before:
            with suppress(OSError):  # it may be gone
                os.chdir(before)

    return back


def _folder() -> str | None:
    """Return the folder that the process is in; None where it is gone."""
    try:
        return os.getcwd()
    except OSError:
        return None


def _save_signals() -> Restore:
    if threading.current_thread() is not threading.main_thread():
        return lambda: None  # no other may set them
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def back() -> None:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)

    return back


def _save_limits() -> Restore:
    recursion, timeout, collecting = sys.getrecursionlimit(), socket.getdefaulttimeout(), gc.isenabled()

    def back() -> None:
        sys.setrecursionlimit(recursion)
        socket.setdefaulttimeout(timeout)
        (gc.enable if collecting else gc.disable)()

    return back


def _save_numpy(numpy: Any) -> Restore:
    state, errors, printing = numpy.random.get_state(), numpy.geterr(), numpy.get_printoptions()

    def back() -> None:
        numpy.random.set_state(state)
        numpy.seterr(**errors)
        numpy.set_printoptions(**printing)

    return back


def _save_torch(torch: Any) -> Restore:
    if not hasattr(torch, "get_default_device"):
        return lambda: None  # a plugin is called while torch itself is being imported
    state, device = torch.get_rng_state(), torch.get_default_device()
    settings = [
        (get, put, get())
        for get, put in (
            (torch.get_num_threads, torch.set_num_threads),
            (torch.get_default_dtype, torch.set_default_dtype),
            (torch.is_grad_enabled, torch.set_grad_enabled),
            (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
            (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
        )
    ]

    def back() -> None:
        if torch.get_default_device() != device:
            # None rather than "cpu": a device that was set costs time at every call.
            torch.set_default_device(None if device.type == "cpu" else device)
        for get, put, before in settings:
            if get() != before:
                put(before)
        torch.set_rng_state(state)

    return back


_OF_PYTHON: tuple[Callable[[], Restore], ...] = (
    _save_limits,  # first: the others need room for their calls
    _save_streams,
    _save_random,
    _save_locale,
    _save_logging,
    _save_environment,
    _save_import_path,
    _save_folder,
    _save_signals,
)
"""Each remembers something of the process, and returns what puts it back."""
_OF_MODULES: dict[str, Callable[[Any], Restore]] = {"numpy": _save_numpy, "torch": _save_torch}
"""The same for a module that may not be imported yet."""
