"""The KV cache: blocks of slots for sequences of similar length, within a memory budget."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

GROWTH_PERCENT = 125
"""Percent of the tokens needed now that memory is taken for: attention reads all of it, and taking more copies it."""


class KVBlock:
    """Keys and values of some sequences: one slot for each, all of the same width.

    Unlike vLLM's pages, a block is one contiguous tensor a layer, which grows up to its width.
    """

    def __init__(self, count: int, width: int, prefix: KVBlock | None = None) -> None:
        """Reserve slots; memory is taken as sequences grow.

        Args:
            count: number of slots.
            width: tokens that each slot may hold, those of the prefix left out.
            prefix: a block with a single, filled slot: the prefix that all of these sequences begin with.
        """
        self.count, self.width, self.prefix = count, width, prefix
        self.free_slots = list(range(count - 1, -1, -1))
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def layer(
        self, index: int, key: torch.Tensor, value: torch.Tensor, tokens: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a layer's keys and values, each of shape [count, heads, tokens or more, size].

        Args:
            index: the layer's index.
            key: keys of any tokens of that layer, shape [..., heads, any, size]: their shape and type count.
            value: values of the same tokens; their size may differ.
            tokens: tokens that each slot must have memory for now.
        """
        cached = self._layers.get(index)
        if cached is None or cached[0].shape[2] < tokens:
            width = min(self.width, -(-tokens * GROWTH_PERCENT // 100))
            cached = (_grown(self, cached and cached[0], key, width), _grown(self, cached and cached[1], value, width))
            self._layers[index] = cached
        return cached

    @property
    def prefix_len(self) -> int:
        """Tokens of the prefix."""
        return self.prefix.width if self.prefix else 0

    def shrink_to_fit(self, count: int, needed: int, max_padding: int) -> None:
        """Free memory that sequences leave unused, where it is worth a copy of the rest.

        Args:
            count: number of sequences; they are in the first slots.
            needed: tokens that the longest of them needs.
            max_padding: unused tokens that are left alone.
        """
        kept = count if 2 * count <= self.count else self.count
        width = needed if count * (self.width - needed) > max_padding else self.width
        if (kept, width) == (self.count, self.width):
            return
        self.count, self.width = kept, width
        self.free_slots = [slot for slot in self.free_slots if slot < kept]
        for index, (key, value) in self._layers.items():
            self._layers[index] = key[:kept, :, :width].clone(), value[:kept, :, :width].clone()

    def copy(self, source: KVBlock, source_slot: int, slot: int) -> None:
        """Copy what is in one slot of `source` into one of these slots."""
        for index, (key, value) in source._layers.items():
            tokens = min(key.shape[2], self.width)
            cached = self.layer(index, key[0, None], value[0, None], tokens)
            for ours, theirs in zip(cached, (key, value), strict=True):
                ours[slot, :, :tokens] = theirs[source_slot, :, :tokens]

    @property
    def bytes(self) -> int:
        """Bytes of memory taken so far."""
        return sum(tensor.nbytes for cached in self._layers.values() for tensor in cached)


def _grown(block: KVBlock, before: torch.Tensor | None, like: torch.Tensor, width: int) -> torch.Tensor:
    # Zeros: what was never written is masked, and must be numbers all the same.
    grown = like.new_zeros(block.count, like.shape[-3], width, like.shape[-1])
    if before is not None:
        grown[:, :, : before.shape[2]] = before
    return grown


@dataclass(slots=True)
class KVBudget:
    """Memory for keys and values, and the blocks that it is reserved for."""

    bytes: int
    bytes_per_token: int
    blocks: list[KVBlock] = field(default_factory=list)
    peak_tokens: int = 0
    """Tokens that blocks were reserved for at once, at most."""

    @property
    def total_tokens(self) -> int:
        """Tokens that the budget is for."""
        return self.bytes // self.bytes_per_token

    @property
    def reserved_tokens(self) -> int:
        """Tokens that blocks are reserved for."""
        return sum(block.count * block.width for block in self.blocks)

    def allocate(self, count: int, width: int, prefix: KVBlock | None = None) -> KVBlock | None:
        """Return a block for up to `count` sequences of up to `width` tokens; None: not even one fits."""
        reserved = self.reserved_tokens
        count = min(count, (self.total_tokens - reserved) // width)
        if count < 1:
            return None
        block = KVBlock(count, width, prefix)
        self.blocks.append(block)
        self.peak_tokens = max(self.peak_tokens, reserved + count * width)
        return block

    def free(self, block: KVBlock) -> None:
        """Give back what a block has reserved; its memory goes with the last reference to it."""
        self.blocks.remove(block)
