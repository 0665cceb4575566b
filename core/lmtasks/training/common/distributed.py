"""Which of several processes this is, where torchrun, accelerate or MPI started them; imports no torch."""

from __future__ import annotations

import os


def rank() -> int:
    """Return the number of this process; 0 is the one that scores and writes."""
    return _first(("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK"), 0)


def processes() -> int:
    """Return how many processes train together."""
    return _first(("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"), 1)


def _first(names: tuple[str, ...], default: int) -> int:
    """Return the first of these variables: those of torchrun and of MPI, as accelerate reads them."""
    return next((int(os.environ[name]) for name in names if name in os.environ), default)
