"""Snapshots of what plugin code may change of the process: seeds, locale, logging, environment, torch's settings."""

from __future__ import annotations

import ctypes
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Restore = Callable[[], object]
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_MERSENNE_TWISTER_BYTES = 625 * 4
"""Size of the state of numpy's MT19937: 624 words and a position."""


class ProcessState:
    """A snapshot of what plugin code may change of the process."""

    def __init__(self) -> None:
        """Save the current state, and that of numpy and torch where they are imported."""
        self._restores: list[Restore] = [save() for save in _PYTHON_STATE]
        for name in _MODULE_STATE:
            if name in sys.modules:
                self.save_module(name, sys.modules[name])

    def save_module(self, name: str, module: ModuleType) -> None:
        """Add the state of numpy or torch to the snapshot."""
        self._restores.append(_MODULE_STATE[name](module))

    def restore(self) -> None:
        """Restore the saved state.

        Folders that were added to the import path stay, moved to its end: the plugin may import from them later, and
        they hide no other module.
        """
        for restore in self._restores:
            restore()


@contextmanager
def saved_process_state() -> Iterator[ProcessState]:
    """Save the process state, numpy's and torch's too if they are imported meanwhile; the caller restores it."""
    state = ProcessState()
    hook = _ImportHook(state)
    sys.meta_path.insert(0, hook)
    try:
        yield state
    finally:
        with suppress(ValueError):
            sys.meta_path.remove(hook)


class _ImportHook(MetaPathFinder):
    """Saves the state of numpy and torch as soon as they are imported, before a plugin can change it."""

    def __init__(self, state: ProcessState) -> None:
        self._state = state
        self._searching = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _MODULE_STATE or self._searching:
            return None
        self._searching = True  # the search below asks this hook again
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_save(module: ModuleType) -> None:
                execute(module)
                self._state.save_module(fullname, module)

            spec.loader.exec_module = execute_and_save  # type: ignore[method-assign]
        return spec


def _save_random() -> Restore:
    state = random.getstate()
    return lambda: random.setstate(state)


def _save_locale() -> Restore:
    before = locale.setlocale(locale.LC_ALL)

    def restore() -> None:
        if locale.setlocale(locale.LC_ALL) != before:
            with suppress(locale.Error):
                locale.setlocale(locale.LC_ALL, before)

    return restore


def _save_logging() -> Restore:
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "lmtasks"]
    loggers = [logging.getLogger(), *map(logging.getLogger, names)]
    states = [(logger, logger.level, logger.handlers[:], logger.disabled, logger.propagate) for logger in loggers]
    disabled, logger_class = logging.root.manager.disable, logging.getLoggerClass()

    def restore() -> None:
        for logger, level, handlers, was_disabled, propagate in states:
            if logger.level != level:
                logger.setLevel(level)
            logger.handlers[:] = handlers
            logger.disabled, logger.propagate = was_disabled, propagate
        if logging.root.manager.disable != disabled:
            logging.disable(disabled)
        logging.setLoggerClass(logger_class)

    return restore


def _save_streams() -> Restore:
    before = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr", "excepthook")}

    def restore() -> None:
        for name, value in before.items():
            setattr(sys, name, value)

    return restore


def _save_environment() -> Restore:
    before = dict(os.environ)

    def restore() -> None:
        if os.environ != before:
            for name in set(os.environ) - set(before):
                del os.environ[name]
            os.environ.update(before)

    return restore


def _save_import_path() -> Restore:
    before = sys.path[:]

    def restore() -> None:
        if sys.path != before:
            added = dict.fromkeys(folder for folder in sys.path if folder not in before)
            sys.path[:] = [*before, *added]

    return restore


def _save_working_directory() -> Restore:
    before = _working_directory()

    def restore() -> None:
        if before and _working_directory() != before:
            with suppress(OSError):  # it may no longer exist
                os.chdir(before)

    return restore


def _working_directory() -> str | None:
    """Return the working directory; None if it no longer exists."""
    try:
        return os.getcwd()
    except OSError:
        return None


def _save_signals() -> Restore:
    if threading.current_thread() is not threading.main_thread():
        return lambda: None  # only the main thread may set them
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)

    return restore


def _save_limits() -> Restore:
    recursion_limit, timeout, gc_enabled = sys.getrecursionlimit(), socket.getdefaulttimeout(), gc.isenabled()

    def restore() -> None:
        sys.setrecursionlimit(recursion_limit)
        socket.setdefaulttimeout(timeout)
        (gc.enable if gc_enabled else gc.disable)()

    return restore


def _save_numpy(numpy: Any) -> Restore:
    state, errors, printing = numpy.random.get_state(legacy=False), numpy.geterr(), numpy.get_printoptions()
    generator = numpy.random.get_bit_generator()
    memory = _generator_memory(numpy, generator)

    def restore() -> None:
        # Setting the state takes ten times as long as comparing it in memory, where a cached normal draw is not seen.
        if (
            state.get("has_gauss")
            or memory is None
            or _generator_memory(numpy, numpy.random.get_bit_generator()) != memory
        ):
            numpy.random.set_bit_generator(generator)
            numpy.random.set_state(state)
        if numpy.geterr() != errors:
            numpy.seterr(**errors)
        if numpy.get_printoptions() != printing:
            numpy.set_printoptions(**printing)

    return restore


def _generator_memory(numpy: Any, generator: Any) -> bytes | None:
    """Return the bytes of a Mersenne Twister's state; None: the generator is another."""
    if type(generator) is not numpy.random.MT19937:
        return None
    return ctypes.string_at(generator.ctypes.state_address, _MERSENNE_TWISTER_BYTES)


def _save_torch(torch: Any) -> Restore:
    if not hasattr(torch, "get_default_device"):
        return lambda: None  # torch itself is still being imported
    state, device = torch.get_rng_state(), torch.get_default_device()
    settings = [
        (get, set_value, get())
        for get, set_value in (
            (torch.get_num_threads, torch.set_num_threads),
            (torch.get_default_dtype, torch.set_default_dtype),
            (torch.is_grad_enabled, torch.set_grad_enabled),
            (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
            (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
        )
    ]

    def restore() -> None:
        if torch.get_default_device() != device:
            # None rather than "cpu": a default device that was set slows down every call of torch.
            torch.set_default_device(None if device.type == "cpu" else device)
        for get, set_value, before in settings:
            if get() != before:
                set_value(before)
        torch.set_rng_state(state)

    return restore


_PYTHON_STATE: tuple[Callable[[], Restore], ...] = (
    _save_limits,  # restored first: the other functions need the recursion limit
    _save_streams,
    _save_random,
    _save_locale,
    _save_logging,
    _save_environment,
    _save_import_path,
    _save_working_directory,
    _save_signals,
)
"""Functions that save a part of the process state and return a function that restores it, any number of times."""
_MODULE_STATE: dict[str, Callable[[Any], Restore]] = {"numpy": _save_numpy, "torch": _save_torch}
"""The same for modules that may not be imported yet."""
