"""Draft tokens for a text that repeats what it holds already (Saxena 2023, "Prompt Lookup Decoding")."""

from __future__ import annotations

from collections.abc import Sequence

NGRAM = 3
"""Last tokens that must have occurred before."""
MAX_DRAFT = 6
"""Draft tokens proposed at once."""


class PromptLookup:
    """The n-grams of a growing text, and what followed each of them."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, ...], int] = {}
        self._indexed = NGRAM

    def propose(self, ids: Sequence[int]) -> list[int]:
        """Return the tokens that followed the last n-gram where it occurred before; nothing where it is new.

        Args:
            ids: the text, longer than at the last call and otherwise the same.
        """
        for end in range(self._indexed, len(ids)):
            self._ends[tuple(ids[end - NGRAM : end])] = end
        self._indexed = max(self._indexed, len(ids))
        end = self._ends.get(tuple(ids[-NGRAM:]), len(ids))
        return list(ids[end : end + MAX_DRAFT])
