"""Longest common subsequences of token sequences, a row of the table in one integer.

A row of the usual table grows by 0 or 1 from cell to cell, so it is kept as the set of cells where it grows: a bit
each. A row follows from the one before by one addition (Hyyrö 2004, "Bit-parallel LCS-length computation revisited"),
which takes as long as ten cells of a table made of lists.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def lcs_length(reference: Sequence[Hashable], candidate: Sequence[Hashable]) -> int:
    """Return the length of the longest common subsequence."""
    return _rows(reference, candidate)[-1].bit_count()


def lcs_positions(reference: Sequence[Hashable], candidate: Sequence[Hashable]) -> list[int]:
    """Return the places in the reference of one longest common subsequence, from the last to the first.

    Of several, it is the one that rouge-score reads out of its table: from the end, tokens that are equal are taken;
    else the step goes back in the candidate if that keeps more, and back in the reference otherwise.
    """
    rows = _rows(reference, candidate)
    positions = []
    i, j = len(reference), len(candidate)
    while i and j:
        if reference[i - 1] == candidate[j - 1]:
            i, j = i - 1, j - 1
            positions.append(i)
            continue
        before_j = (1 << j) - 1
        if (rows[i] & before_j >> 1).bit_count() > (rows[i - 1] & before_j).bit_count():
            j -= 1
        else:
            i -= 1
    return positions


def _rows(reference: Sequence[Hashable], candidate: Sequence[Hashable]) -> list[int]:
    """Return the table by rows, one more than the reference has tokens.

    Bit j of row i is set where the length for reference[:i] and candidate[:j + 1] is one more than for candidate[:j];
    the length for candidate[:j] is the number of set bits below bit j.
    """
    places: dict[Hashable, int] = {}
    for j, token in enumerate(candidate):
        places[token] = places.get(token, 0) | 1 << j
    everywhere = (1 << len(candidate)) - 1
    kept = everywhere  # bits where the row does not grow
    rows = [0]
    for token in reference:
        matched = kept & places.get(token, 0)
        kept = (kept + matched | kept - matched) & everywhere
        rows.append(everywhere ^ kept)
    return rows
