"""Keep transformers from writing to the terminal while we ask it for something."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging


@contextmanager
def quiet() -> Iterator[None]:
    """Hide progress bars and messages below errors, and restore the settings at the end."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    hub = logging.getLogger("huggingface_hub")
    hub_level = hub.level
    transformers_logging.set_verbosity_error()
    # The hub's client warns of each attempt to reach it; if none succeeds, one error is raised.
    hub.setLevel(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # Warnings for developers of these packages, and of GPT-2's layers, which peft corrects by itself.
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set")
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft|accelerate")
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        hub.setLevel(hub_level)
        if bars:
            transformers_logging.enable_progress_bar()
