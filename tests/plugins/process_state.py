"""What a plugin may change of a process, looked at from outside."""

from __future__ import annotations

import gc
import locale
import logging
import os
import random
import signal
import socket
import sys
import warnings


def state() -> dict[str, object]:
    """Return all of it; of numpy and torch where they are imported."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    kept = {
        "random": hash(random.getstate()),
        "locale": locale.setlocale(locale.LC_ALL),
        "folder": os.getcwd(),
        "level": logging.getLogger().level,
        "handlers": len(logging.getLogger("lmtasks").handlers),
        "disabled": logging.root.manager.disable,
        "class": logging.getLoggerClass().__name__,
        "environment": hash(tuple(sorted(os.environ.items()))),
        "warnings": str(warnings.filters),
        "recursion": sys.getrecursionlimit(),
        "timeout": socket.getdefaulttimeout(),
        "gc": gc.isenabled(),
        "interrupt": str(signal.getsignal(signal.SIGINT)),
        "hook": str(sys.excepthook),
        "streams": (sys.stdin is None, sys.stdout is None, sys.stderr is None),
        "path": [folder for folder in sys.path if folder != "/folder-of-the-plugin"],
        "first": sys.path[0],
    }
    if numpy:
        kept |= {
            "numpy": numpy.random.get_state()[1].tolist(),
            "errors": numpy.geterr(),
            "printing": numpy.get_printoptions()["precision"],
        }
    if torch:
        kept |= {
            "torch": torch.get_rng_state().tolist(),
            "threads": torch.get_num_threads(),
            "dtype": str(torch.get_default_dtype()),
            "device": str(torch.get_default_device()),
            "grad": torch.is_grad_enabled(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "precision": torch.get_float32_matmul_precision(),
        }
    return kept
