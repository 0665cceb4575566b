"""Prefix sharing: what prompts have in common at their beginning is computed once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lmtasks.backends.native.sequence import SequenceState, SharedPrefix

MIN_PREFIX = 16
"""Tokens of the shortest prefix that is worth sharing."""
SHARED_KV_MIN = 8, 256
"""Sequences with the same prefix, and tokens of it, from which on its keys and values are kept once and read for all
sequences at once. A second product for fewer takes longer than to read a copy."""


def assign_prefixes(sequences: Sequence[SequenceState], computed: Iterable[SharedPrefix] = ()) -> None:
    """Give each sequence the prefix that it shares with others.

    Args:
        sequences: sequences that have not begun.
        computed: prefixes whose keys and values are there already: who begins with one of them takes it.
    """
    existing = sorted(computed, key=lambda prefix: -len(prefix.ids))
    others: dict[str | None, list[SequenceState]] = {}
    for sequence in sequences:
        if prefix := next((prefix for prefix in existing if _begins_with(sequence, prefix)), None):
            sequence.prefix = prefix
            prefix.users += 1
            prefix.waiting += 1
        else:
            others.setdefault(sequence.adapter, []).append(sequence)
    for adapter, members in others.items():
        _share(members, adapter)


def _begins_with(sequence: SequenceState, prefix: SharedPrefix) -> bool:
    length = len(prefix.ids)
    return (
        sequence.adapter == prefix.adapter
        and sequence.prompt_tokens > length
        and tuple(sequence.token_ids[:length]) == prefix.ids
    )


def _share(sequences: Sequence[SequenceState], adapter: str | None) -> None:
    prompts = [sequence.token_ids[: sequence.prompt_tokens] for sequence in sequences]
    prefixes: dict[tuple[int, ...], SharedPrefix] = {}
    for sequence, prompt, length in zip(sequences, prompts, shared_prefixes(prompts), strict=True):
        ids = tuple(prompt[:length])
        prefix = prefixes.setdefault(ids, SharedPrefix(ids, adapter))
        prefix.users += 1
        prefix.waiting += 1
        prefix.shares_kv = prefix.users >= SHARED_KV_MIN[0] and length >= SHARED_KV_MIN[1]
        sequence.prefix = prefix


def shared_prefixes(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Return for each prompt how many of its first tokens to share; prompts that share these have the same.

    Prompts are divided so that as few tokens as possible are computed. Each keeps one token of its own at least: its
    last one predicts the next.
    """
    order = sorted(range(len(prompts)), key=lambda index: tuple(prompts[index]))
    common = [_common(prompts[one], prompts[other]) for one, other in zip(order, order[1:], strict=False)]
    lengths = [0] * len(prompts)
    for first, last, length in _divide(common, 0, len(order)):
        for index in order[first:last]:
            lengths[index] = length
    return lengths


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    most = min(len(one), len(other)) - 1
    return next((index for index in range(most) if one[index] != other[index]), most)


def _divide(common: Sequence[int], first: int, last: int) -> list[tuple[int, int, int]]:
    """Return groups of neighbours from `first` to `last` that share, each with how many tokens.

    Args:
        common: for each prompt and the next, how many tokens they have in common.
        first: index of the first prompt.
        last: index of the last prompt, plus one.
    """
    groups: list[tuple[int, int, int]] = []
    open_ranges = [(first, last)]
    while open_ranges:
        first, last = open_ranges.pop()
        if last - first < 2:
            continue
        parts = _split(common, first, last)
        length = min(common[first : last - 1])
        saved = sum(_saved(common, *part) for part in parts)
        if length < MIN_PREFIX or saved > _saved(common, first, last):
            open_ranges += parts
        else:
            groups.append((first, last, length))
    return groups


def _split(common: Sequence[int], first: int, last: int) -> list[tuple[int, int]]:
    """Divide a range where its neighbours have least in common."""
    least = min(common[first : last - 1])
    cuts = [first, *(index + 1 for index in range(first, last - 1) if common[index] == least), last]
    return list(zip(cuts, cuts[1:], strict=False))


def _saved(common: Sequence[int], first: int, last: int) -> int:
    """Return how many tokens need not be computed if a range shares its prefix; a prefix too short saves nothing."""
    length = min(common[first : last - 1], default=0)
    return (last - first - 1) * length if length >= MIN_PREFIX else 0
