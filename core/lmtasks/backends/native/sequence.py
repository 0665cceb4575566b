"""Texts under way: what is known of each, what it shares with others, and the order in which they begin."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import torch

from lmtasks.backends.native.kv_cache import MOST_WASTED, Slots
from lmtasks.backends.native.prefix_sharing import shared_prefixes
from lmtasks.backends.native.prompt_lookup import Lookup
from lmtasks.backends.stopping import StopCheck
from lmtasks.reasoning import ReasoningParser
from lmtasks.task import SamplingParams

APART = 8, 256
"""Sequences with the same prefix, and tokens of it, from which on its keys and values stay apart and are read for all
at once. A second product for fewer takes longer than to read a copy."""


@dataclass(slots=True, eq=False)
class Prefix:
    """What some prompts have in common."""

    ids: tuple[int, ...]
    adapter: str | None
    """That reads it."""
    users: int = 0
    """Sequences that are still to begin or under way with it."""
    waiting: int = 0
    """Sequences that are still to begin with it."""
    apart: bool = False
    """Whether its keys and values are read where they are; else each sequence gets a copy."""
    slots: Slots | None = None


@dataclass(slots=True, eq=False)
class Growing:
    """A text under way: a prompt with what has been written so far, or with the answer that is measured."""

    place: int
    ids: list[int]
    """All tokens that are known."""
    prompt: int
    """How many of them are the prompt's."""
    room: int
    """Tokens that it will have been fed in the end."""
    prefix: Prefix
    slots: Slots = field(init=False)
    slot: int = -1
    fed: int = 0
    """Tokens whose keys and values are in the slot."""

    @property
    def base(self) -> int:
        """Tokens at its beginning that are kept apart."""
        return len(self.prefix.ids) if self.prefix.apart else 0

    @property
    def pending(self) -> int:
        """Tokens that are known and not yet fed."""
        return min(len(self.ids), self.room) - self.base - self.fed

    @property
    def need(self) -> int:
        """Tokens that its slot must have room for."""
        return self.room - self.base


@dataclass(slots=True, eq=False)
class Answer(Growing):
    """One that grows by what the model chooses."""

    generation: SamplingParams = field(kw_only=True)
    generator: torch.Generator = field(kw_only=True)
    reasoning: ReasoningParser = field(kw_only=True)
    stop_check: StopCheck = field(kw_only=True)
    lookup: Lookup | None = None
    guessed: int = 0
    """Of the last tokens, how many nobody has chosen yet."""

    @property
    def new(self) -> list[int]:
        """What has been chosen."""
        return self.ids[self.prompt :]


@dataclass(slots=True, eq=False)
class Text(Growing):
    """One that is measured."""

    logprob: float = 0.0


Found = TypeVar("Found", bound=Growing)


def with_prefixes(prompts: Sequence[tuple[Sequence[int], str | None]]) -> list[Prefix]:
    """Return for each prompt with its adapter what it shares with others."""
    lengths = [0] * len(prompts)
    for adapter in {adapter for _, adapter in prompts}:
        places = [place for place, (_, own) in enumerate(prompts) if own == adapter]
        for place, length in zip(places, shared_prefixes([prompts[place][0] for place in places]), strict=True):
            lengths[place] = length
    found: dict[tuple[object, ...], Prefix] = {}
    prefixes = []
    for (prompt, adapter), length in zip(prompts, lengths, strict=True):
        ids = tuple(prompt[:length])
        prefix = found.setdefault((ids, adapter), Prefix(ids, adapter))
        prefix.users += 1
        prefix.waiting += 1
        prefix.apart = prefix.users >= APART[0] and length >= APART[1]
        prefixes.append(prefix)
    return prefixes


def in_order(sequences: Sequence[Found]) -> deque[Found]:
    """Return those that begin alike together, and the longest first: all that comes later fits into their slots."""
    longest: dict[Prefix, int] = {}
    for sequence in sequences:
        longest[sequence.prefix] = max(longest.get(sequence.prefix, 0), sequence.need)
    return deque(
        sorted(
            sequences,
            key=lambda sequence: (
                -longest[sequence.prefix],
                sequence.prefix.ids,
                sequence.prefix.adapter or "",
                -sequence.need,
            ),
        )
    )


def count_alike(waiting: deque[Found], most: int) -> int:
    """Count the first of those that wait and those next to it, up to `most`, that waste little in slots together."""
    first = waiting[0]
    wasted = 0
    for count, other in enumerate(islice(waiting, most)):
        unused = first.need - other.need
        wasted += unused
        same = other.prefix is first.prefix or not (other.prefix.apart or first.prefix.apart)
        if not same or unused < 0 or wasted > MOST_WASTED:
            return count
    return min(len(waiting), most)


def room_elsewhere(members: Sequence[Growing], found: Iterable[Slots]) -> Slots | None:
    """Return slots other than those of some sequences that have room for them all and waste little on them."""
    slots, need = members[0].slots, max(sequence.need for sequence in members)
    fitting = (
        other
        for other in found
        if other is not slots
        and other.prefix is slots.prefix
        and len(other.free) >= len(members)
        and 0 <= len(members) * (other.width - need) <= MOST_WASTED
    )
    return min(fitting, key=lambda other: other.width, default=None)


def guess(answer: Answer) -> None:
    """Put behind an answer what followed its last words before, to be confirmed or not by the next step."""
    generation = answer.generation
    if generation.temperature or generation.repetition_penalty != 1:
        return
    answer.lookup = answer.lookup or Lookup()
    left = generation.max_new_tokens - len(answer.new) - 1
    guesses = answer.lookup.following(answer.ids)[:left]
    answer.ids.extend(guesses)
    answer.guessed = len(guesses)
