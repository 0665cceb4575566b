"""How long work tells that it goes on: a callback, so that no room below the command line prints."""

from __future__ import annotations

from typing import Protocol


class OnProgress(Protocol):
    """Hears how far work is."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Hear of some progress.

        Args:
            what: is being done.
            done: how much of it is done.
            total: how much there is; 0: unknown.
            note: what else there is to say, such as the loss of a training.
        """
        ...


def no_progress(what: str, done: int, total: int, note: str = "") -> None:
    """Tell nobody."""
