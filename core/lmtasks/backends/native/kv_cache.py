"""Keys and values of sequences under way: slots for sequences of similar length, within a budget of memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

GROWTH = 125
"""Percent of the room that is needed which is taken: attention reads what was taken, and taking more copies it."""

MOST_WASTED = 1024
"""Tokens to read for nothing from which on sequences do not take slots together, and slots are cut. Attention computes
a set of slots at once, as if all sequences were the longest; to have one set more costs as much as to read 1,900 tokens
(2.8 ms a step of 30 layers on two cores)."""


class Slots:
    """Room for the keys and values of some sequences, as many tokens for each."""

    def __init__(self, count: int, width: int, prefix: Slots | None = None) -> None:
        """Take how much there is room for; memory is taken as sequences grow.

        Args:
            count: of sequences.
            width: tokens that each may have, those of the prefix left out.
            prefix: a single slot, filled, with what all of these sequences begin with.
        """
        self.count, self.width, self.prefix = count, width, prefix
        self.free = list(range(count - 1, -1, -1))
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def layer(
        self, index: int, key: torch.Tensor, value: torch.Tensor, tokens: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a layer's keys and values, each of shape [count, heads, tokens or more, size].

        Args:
            index: of the layer.
            key: of some tokens of that layer, shape [..., heads, any, size]; says what is to be kept.
            value: likewise; its size may differ.
            tokens: that there must be room for now.
        """
        kept = self._layers.get(index)
        if kept is None or kept[0].shape[2] < tokens:
            width = min(self.width, -(-tokens * GROWTH // 100))
            kept = (_grown(self, kept and kept[0], key, width), _grown(self, kept and kept[1], value, width))
            self._layers[index] = kept
        return kept

    @property
    def base(self) -> int:
        """Tokens of the prefix."""
        return self.prefix.width if self.prefix else 0

    def fit(self, count: int, need: int) -> None:
        """Give back what sequences leave unused, where it is worth a copy of the rest.

        Args:
            count: of the sequences; they are in the first slots.
            need: tokens that each must have room for, at most.
        """
        kept = count if 2 * count <= self.count else self.count
        width = need if count * (self.width - need) > MOST_WASTED else self.width
        if (kept, width) == (self.count, self.width):
            return
        self.count, self.width = kept, width
        self.free = [place for place in self.free if place < kept]
        for index, (key, value) in self._layers.items():
            self._layers[index] = key[:kept, :, :width].clone(), value[:kept, :, :width].clone()

    def copy(self, source: Slots, place: int, to: int) -> None:
        """Copy what is in one slot of `source` into one of these."""
        for index, (key, value) in source._layers.items():
            tokens = min(key.shape[2], self.width)
            kept = self.layer(index, key[0, None], value[0, None], tokens)
            for mine, other in zip(kept, (key, value), strict=True):
                mine[to, :, :tokens] = other[place, :, :tokens]

    @property
    def bytes(self) -> int:
        """Memory that is taken."""
        return sum(part.nbytes for kept in self._layers.values() for part in kept)


def _grown(slots: Slots, before: torch.Tensor | None, like: torch.Tensor, width: int) -> torch.Tensor:
    # Zeros: what was never written is masked, and must be numbers all the same.
    room = like.new_zeros(slots.count, like.shape[-3], width, like.shape[-1])
    if before is not None:
        room[:, :, : before.shape[2]] = before
    return room


@dataclass(slots=True)
class Budget:
    """Of memory for keys and values."""

    bytes: int
    bytes_per_token: int
    taken: list[Slots] = field(default_factory=list)

    @property
    def used(self) -> int:
        """Tokens that there is room for."""
        return sum(slots.count * slots.width for slots in self.taken)

    def take(self, count: int, width: int, prefix: Slots | None = None) -> Slots | None:
        """Return slots for up to `count` sequences of up to `width` tokens; None: there is no room for even one."""
        left = self.bytes // self.bytes_per_token - self.used
        count = min(count, left // width)
        if count < 1:
            return None
        slots = Slots(count, width, prefix)
        self.taken.append(slots)
        return slots

    def give_back(self, slots: Slots) -> None:
        """Free the memory of slots."""
        self.taken.remove(slots)
