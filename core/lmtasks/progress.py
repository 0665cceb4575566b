"""The callback that reports progress, so that only the command line prints."""

from __future__ import annotations

from typing import Protocol


class OnProgress(Protocol):
    """A callback for progress."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Report progress.

        Args:
            what: name of the work.
            done: amount that is done.
            total: total amount; 0: unknown.
            note: further information, such as the loss of a training.
        """
        ...


def no_progress(what: str, done: int, total: int, note: str = "") -> None:
    """Ignore progress."""
