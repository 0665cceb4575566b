"""Contexts of a training: random state and environment restored, and a full GPU reported."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from lmtasks.errors import TrainingError, option


@contextmanager
def preserve_rng() -> Iterator[None]:
    """Restore the random state of Python, numpy and torch at the end: a training seeds all of them."""
    python, others = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(others)


@contextmanager
def environment_variables(**values: str) -> Iterator[None]:
    """Set environment variables, and restore what they were at the end."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def report_oom() -> Iterator[None]:
    """Report in one line that a step needs more memory than a GPU has.

    Raises:
        TrainingError: torch ran out of the device's memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"a step needs more memory than the device has; use a higher {option('gradient_accumulation')},"
            f" {option('gradient_checkpointing', True)}, or a smaller {option('max_length')}"
        ) from error
