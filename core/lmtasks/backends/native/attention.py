"""Attention over the KV cache, for tokens of many sequences in one row; registered with transformers.

A batch is a single row of tokens without padding: prefill chunks, each of several tokens of one sequence, and decode
batches, each of one token of every sequence in a KV block. Each token attends to the prefix that its sequence shares
with others (computed and kept once) and to its sequence's own tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from transformers import AttentionInterface

from lmtasks.backends.native.kv_cache import KVBlock
from lmtasks.kernels.attention import (
    blockwise_causal_attention,
    check_attention_arguments,
    decode_attention,
    visible_mask,
)

CACHED_ATTENTION = "lmtasks_cached"
"""The name of this function in transformers' attention interface."""


@dataclass(slots=True)
class PrefillChunk:
    """Several new tokens of one sequence."""

    start: int
    """Index of its first token in the row."""
    count: int
    block: KVBlock
    slot: int
    position: int
    """How many tokens of the sequence are in the slot already."""


@dataclass(slots=True)
class DecodeBatch:
    """One new token of each of some sequences in the same KV block."""

    start: int
    """Index of the first token in the row; the others follow."""
    block: KVBlock
    slots: torch.Tensor
    """The sequences' slots, in ascending order, shape [sequences]."""
    positions: torch.Tensor
    """How many tokens each has in its slot already, shape [sequences]."""
    high: int
    """The last slot that is used, plus one."""
    width: int
    """Length of the longest of the sequences, the new token included."""
    _masks: dict[tuple[int | None, int], torch.Tensor | None] = field(default_factory=dict)

    @property
    def has_holes(self) -> bool:
        """Whether some slot below the highest has no new token."""
        return len(self.slots) < self.high

    def mask(self, window: int | None, width: int, dtype: torch.dtype) -> torch.Tensor | None:
        """Return what is added to logits of shape [high, groups, heads, prefix + width]; None: nothing."""
        if (window, width) not in self._masks:
            last = self.positions.new_zeros(self.high).index_copy_(0, self.slots, self.positions)[:, None]
            visible = visible_mask(last + self.block.prefix_len, self.block.prefix_len + width, window)
            mask = torch.zeros(visible.shape, device=visible.device, dtype=dtype).masked_fill_(~visible, -torch.inf)
            self._masks[window, width] = None if bool(visible.all()) else mask[:, None, None]
        return self._masks[window, width]


@dataclass(slots=True)
class ForwardBatch:
    """The row of one forward pass: each token of the row is in one prefill chunk or one decode batch."""

    prefill: list[PrefillChunk]
    decode: list[DecodeBatch]


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    lmtasks_batch: ForwardBatch | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend over the KV cache; a function of transformers' attention interface.

    The arguments are those of that interface: query of shape [1, heads, tokens, size], key and value with as many
    heads or fewer. `lmtasks_batch` says which sequences the tokens belong to; their keys and values are added to its
    KV blocks.

    Raises:
        TypeError: the architecture attends in a way that is not supported.
    """
    check_attention_arguments(softcap, s_aux)
    if lmtasks_batch is None:
        raise TypeError("the architecture does not pass its arguments on to the attention function")
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    query = query[0] * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    output = query.new_empty(query.shape[1], query.shape[0], value.shape[-1])
    for chunk in lmtasks_batch.prefill:
        tokens = slice(chunk.start, chunk.start + chunk.count)
        keys, values = _prefill_kv(chunk, layer, key[0, :, tokens], value[0, :, tokens])
        attended = blockwise_causal_attention(query[:, tokens], keys, values, window=sliding_window)
        output[tokens] = attended.transpose(0, 1)
    for batch in lmtasks_batch.decode:
        tokens = slice(batch.start, batch.start + len(batch.slots))
        output[tokens] = _decode(batch, layer, query[:, tokens], key[0, :, tokens], value[0, :, tokens], sliding_window)
    return output[None], None


def _prefill_kv(
    chunk: PrefillChunk, layer: int, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cache keys and values of new tokens, shape [groups, tokens, size], and return those of their whole sequence."""
    end = chunk.position + chunk.count
    whole = []
    cached = chunk.block.layer(layer, key, value, end)
    prefix = chunk.block.prefix and chunk.block.prefix.layer(layer, key, value, chunk.block.prefix_len)
    for index, new in enumerate((key, value)):
        cached[index][chunk.slot, :, chunk.position : end] = new
        behind_prefix = cached[index][chunk.slot, :, :end]
        whole.append(torch.cat([prefix[index][0], behind_prefix], dim=1) if prefix else behind_prefix)
    return whole[0], whole[1]


def _decode(
    batch: DecodeBatch, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None
) -> torch.Tensor:
    """Return the attention outputs of the one new token of each sequence, shape [sequences, heads, size]."""
    heads, _, size = query.shape
    keys, values = batch.block.layer(layer, key, value, batch.width)
    keys[batch.slots, :, batch.positions] = key.transpose(0, 1)
    values[batch.slots, :, batch.positions] = value.transpose(0, 1)
    query = query.transpose(0, 1)
    if batch.has_holes:
        query = query.new_zeros(batch.high, heads, size).index_copy_(0, batch.slots, query)
    prefix = None
    if batch.block.prefix:
        prefix_keys, prefix_values = batch.block.prefix.layer(layer, key, value, batch.block.prefix_len)
        prefix = prefix_keys[0], prefix_values[0]
    # Whole slots, not those parts of them that are filled: only what is contiguous is multiplied without a copy.
    output = decode_attention(
        query,
        keys[: batch.high],
        values[: batch.high],
        mask=batch.mask(window, keys.shape[2], query.dtype),
        prefix=prefix,
    )
    return output[batch.slots] if batch.has_holes else output


AttentionInterface.register(CACHED_ATTENTION, attend)
