"""The number of training processes and the rank of this one, as torchrun, accelerate or MPI set them; without torch."""

from __future__ import annotations

import os


def rank() -> int:
    """Return the rank of this process; rank 0 scores and writes."""
    return _first_set(("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"), 0)


def world_size() -> int:
    """Return the number of processes that train together."""
    return _first_set(("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"), 1)


def _first_set(names: tuple[str, ...], default: int) -> int:
    """Return the first of these environment variables that is set, read in accelerate's order."""
    return next((int(os.environ[name]) for name in names if name in os.environ), default)
