"""Guessing the next tokens of a text that repeats what it holds already (Saxena 2023, "Prompt Lookup Decoding")."""

from __future__ import annotations

from collections.abc import Sequence

WORDS = 3
"""Last tokens that have to have occurred before."""
GUESSES = 6
"""Tokens that are guessed, at most."""


class Lookup:
    """Where a growing text has said the same before."""

    def __init__(self) -> None:
        self._behind: dict[tuple[int, ...], int] = {}
        self._seen = WORDS

    def following(self, ids: Sequence[int]) -> list[int]:
        """Return what followed the last tokens where they occurred last; nothing where they are new.

        Args:
            ids: the text, longer than at the last call and otherwise the same.
        """
        for end in range(self._seen, len(ids)):
            self._behind[tuple(ids[end - WORDS : end])] = end
        self._seen = max(self._seen, len(ids))
        at = self._behind.get(tuple(ids[-WORDS:]))
        return [] if at is None else list(ids[at : at + GUESSES])
