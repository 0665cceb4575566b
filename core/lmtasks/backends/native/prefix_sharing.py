"""What prompts have in common at their beginning, so that it is computed once."""

from __future__ import annotations

from collections.abc import Sequence

LEAST = 16
"""Tokens that are worth being shared."""


def shared_prefixes(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Return for each prompt how many of its first tokens to share; prompts that share these have the same.

    Prompts are divided so that as few tokens as possible are computed. Each keeps one token of its own at least: its
    last one says what follows.
    """
    order = sorted(range(len(prompts)), key=lambda place: tuple(prompts[place]))
    common = [_common(prompts[one], prompts[other]) for one, other in zip(order, order[1:], strict=False)]
    lengths = [0] * len(prompts)
    for first, last, length in _divide(common, 0, len(order)):
        for at in range(first, last):
            lengths[order[at]] = length
    return lengths


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    most = min(len(one), len(other)) - 1
    return next((at for at in range(most) if one[at] != other[at]), most)


def _divide(common: Sequence[int], first: int, last: int) -> list[tuple[int, int, int]]:
    """Return groups of neighbours from `first` to `last` that share, each with how many tokens.

    Args:
        common: of each prompt and the next, how many tokens they have in common.
        first: of the prompts.
        last: of the prompts, plus one.
    """
    found: list[tuple[int, int, int]] = []
    open_ranges = [(first, last)]
    while open_ranges:
        first, last = open_ranges.pop()
        if last - first < 2:
            continue
        parts = _split(common, first, last)
        length = min(common[first : last - 1])
        saved = sum(_saved(common, *part) for part in parts)
        if length < LEAST or saved > _saved(common, first, last):
            open_ranges += parts
        else:
            found.append((first, last, length))
    return found


def _split(common: Sequence[int], first: int, last: int) -> list[tuple[int, int]]:
    """Divide a range where its neighbours have least in common."""
    least = min(common[first : last - 1])
    cuts = [first, *(at + 1 for at in range(first, last - 1) if common[at] == least), last]
    return list(zip(cuts, cuts[1:], strict=False))


def _saved(common: Sequence[int], first: int, last: int) -> int:
    """Return how many tokens need not be computed if a range shares its prefix; what is too short saves nothing."""
    length = min(common[first : last - 1], default=0)
    return (last - first - 1) * length if length >= LEAST else 0
