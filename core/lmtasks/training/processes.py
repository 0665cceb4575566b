"""Which of several processes this is, where torchrun or accelerate started them; imports no torch."""

from __future__ import annotations

import os


def rank() -> int:
    """Return the number of this process; 0 is the one that scores and writes."""
    return int(os.environ.get("RANK", "0"))


def processes() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))
