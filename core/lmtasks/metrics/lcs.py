"""The longest common subsequence of token sequences, and their longest common run.

For subsequences, a row of the usual table is one integer. It grows by 0 or 1 from cell to cell, so it is kept as the
set of cells where it grows: a bit each. A row follows from the one before by one addition (Hyyrö 2004, "Bit-parallel
LCS-length computation revisited"), which takes as long as ten cells of a table made of lists.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence


def lcs_length(reference: Sequence[Hashable], candidate: Sequence[Hashable]) -> int:
    """Return the length of the longest common subsequence."""
    table = _Table(candidate)
    row = 0
    for token in reference:
        row = table.next_row(row, token)
    return row.bit_count()


def lcs_positions(reference: Sequence[Hashable], candidate: Sequence[Hashable]) -> list[int]:
    """Return the positions in the reference of one longest common subsequence, from the last to the first.

    If there are several, it is the one that rouge-score reads from its table: going back from the end, equal tokens
    belong to it; else the step goes back in the candidate if that keeps more, and in the reference otherwise.

    A whole table of long texts would fill the memory: one row of each block is kept, and the others are recomputed.
    """
    table = _Table(candidate)
    block_size = math.isqrt(len(reference)) + 1
    kept = [0]
    row = 0
    for i, token in enumerate(reference, 1):
        row = table.next_row(row, token)
        if i % block_size == 0:
            kept.append(row)
    positions = []
    j = len(candidate)
    for block in range(len(kept) - 1, -1, -1):
        first = block * block_size
        rows = [kept[block]]
        for token in reference[first : first + block_size]:
            rows.append(table.next_row(rows[-1], token))
        i = len(rows) - 1
        while i and j:
            if reference[first + i - 1] == candidate[j - 1]:
                i, j = i - 1, j - 1
                positions.append(first + i)
                continue
            before_j = (1 << j) - 1
            if (rows[i] & before_j >> 1).bit_count() > (rows[i - 1] & before_j).bit_count():
                j -= 1
            else:
                i -= 1
    return positions


class _Table:
    """The table of a candidate, row by row; the row before the first token of a reference is 0.

    Bit j of row i is set where the length for reference[:i] and candidate[:j + 1] is one more than for candidate[:j];
    the length for candidate[:j] is the number of set bits below bit j.
    """

    def __init__(self, candidate: Sequence[Hashable]) -> None:
        indices: dict[Hashable, list[int]] = {}
        for j, token in enumerate(candidate):
            indices.setdefault(token, []).append(j)
        self._positions = {token: _bits(ascending) for token, ascending in indices.items()}
        self._all_bits = (1 << len(candidate)) - 1

    def next_row(self, row: int, token: Hashable) -> int:
        """Return the row that follows another, for the next token of the reference."""
        kept = self._all_bits ^ row  # bits where the row does not grow
        matched = kept & self._positions.get(token, 0)
        return self._all_bits ^ (kept + matched | kept - matched) & self._all_bits


def _bits(indices: Sequence[int]) -> int:
    """Return the integer whose bits at ascending indices are set."""
    filled = bytearray(indices[-1] // 8 + 1)
    for index in indices:
        filled[index // 8] |= 1 << index % 8
    return int.from_bytes(filled, "little")


def longest_common_run(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Return the length of the longest run of tokens, without gaps, that both sequences have.

    The time grows with the sum of both lengths: the second is walked through the suffix automaton of the first
    (Blumer et al. 1985, "The smallest automaton recognizing the subwords of a text").
    """
    lengths, links, steps = _suffix_automaton(first)
    state = length = longest = 0
    for token in second:
        while state and token not in steps[state]:
            state = links[state]
            length = lengths[state]
        if token in steps[state]:
            state = steps[state][token]
            length += 1
            longest = max(longest, length)
    return longest


def _suffix_automaton(tokens: Sequence[Hashable]) -> tuple[list[int], list[int], list[dict[Hashable, int]]]:
    """Return the automaton that reads every run of tokens, and no other; it starts in state 0.

    Returns:
        By state: the length of the longest run that ends in it, its link (the state of the longest suffix of that
        run which ends elsewhere too; -1 for state 0), and where each next token leads.
    """
    lengths, links = [0], [-1]
    steps: list[dict[Hashable, int]] = [{}]
    last = 0
    for token in tokens:
        new = len(lengths)
        lengths.append(lengths[last] + 1)
        links.append(0)
        steps.append({})
        state, last = last, new
        while state >= 0 and token not in steps[state]:
            steps[state][token] = new
            state = links[state]
        if state < 0:
            continue
        target = steps[state][token]
        if lengths[target] == lengths[state] + 1:
            links[new] = target
            continue
        copy = len(lengths)
        lengths.append(lengths[state] + 1)
        links.append(links[target])
        steps.append(steps[target].copy())
        links[target] = links[new] = copy
        while state >= 0 and steps[state].get(token) == target:
            steps[state][token] = copy
            state = links[state]
    return lengths, links, steps
