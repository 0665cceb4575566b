"""How long work tells that it goes on: a callback, so that no room below the command line prints."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is (0: unknown)."""


def no_progress(_: str, _done: int, _total: int) -> None:
    """Tell nobody."""
