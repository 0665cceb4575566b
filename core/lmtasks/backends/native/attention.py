"""Attention for tokens of many sequences in one row, whose earlier keys and values are in slots.

A model of transformers calls it through its attention interface. Each token attends to what its sequence shares with
others (a prefix, computed and kept once) and to its sequence's own tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from transformers import AttentionInterface

from lmtasks.backends.native.kv_cache import Slots
from lmtasks.kernels.attention import blockwise_causal_attention, visible_mask

NAME = "lmtasks_slots"
"""The name that this attention has among those of transformers."""


@dataclass(slots=True)
class Stretch:
    """Several new tokens of one sequence."""

    start: int
    """Of its first token in the row."""
    count: int
    slots: Slots
    slot: int
    position: int
    """How many tokens of it are in the slot already."""


@dataclass(slots=True)
class Column:
    """One new token of each of some sequences in the same slots."""

    start: int
    """Of the first of them in the row; the others follow."""
    slots: Slots
    places: torch.Tensor
    """Their slots, shape [sequences]."""
    positions: torch.Tensor
    """How many tokens each has in its slot already, shape [sequences]."""
    high: int
    """The last slot that is used, plus one."""
    width: int
    """The longest of the sequences, the new token included."""
    _masks: dict[tuple[int | None, int], torch.Tensor | None] = field(default_factory=dict)

    @property
    def has_holes(self) -> bool:
        """Whether some slot below the highest has no new token."""
        return len(self.places) < self.high

    def mask(self, window: int | None, width: int, like: torch.Tensor) -> torch.Tensor | None:
        """Return what is added to logits of shape [high, groups, heads, prefix + width]; None: nothing."""
        if (window, width) not in self._masks:
            last = self.positions.new_zeros(self.high).index_copy_(0, self.places, self.positions)[:, None]
            reached = visible_mask(last + self.slots.base, self.slots.base + width, window)
            blocked = torch.zeros(reached.shape, device=reached.device, dtype=like.dtype).masked_fill_(
                ~reached, -torch.inf
            )
            self._masks[window, width] = None if bool(reached.all()) else blocked[:, None, None]
        return self._masks[window, width]


@dataclass(slots=True)
class Step:
    """What passes through the model at once: each token of the row is in one stretch or one column."""

    stretches: list[Stretch]
    columns: list[Column]


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    lmtasks_step: Step | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend as transformers' attention interface asks for it.

    The arguments are those of that interface: query of shape [1, heads, tokens, size], key and value with as many
    heads or fewer. `lmtasks_step` says whose tokens they are; their keys and values are kept in its slots.

    Raises:
        TypeError: the architecture attends in a way that is not known here.
    """
    if lmtasks_step is None or softcap is not None or s_aux is not None:
        raise TypeError("this way of attending is not known")
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    query = query[0] * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    output = query.new_empty(query.shape[1], query.shape[0], value.shape[-1])
    for stretch in lmtasks_step.stretches:
        here = slice(stretch.start, stretch.start + stretch.count)
        keys, values = _with_earlier(stretch, layer, key[0, :, here], value[0, :, here])
        output[here] = blockwise_causal_attention(query[:, here], keys, values, window=sliding_window).transpose(0, 1)
    for column in lmtasks_step.columns:
        here = slice(column.start, column.start + len(column.places))
        output[here] = _single(column, layer, query[:, here], key[0, :, here], value[0, :, here], sliding_window)
    return output[None], None


def _with_earlier(
    stretch: Stretch, layer: int, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keep keys and values of new tokens, shape [groups, tokens, size], and return all of their sequence."""
    end = stretch.position + stretch.count
    found = []
    kept = stretch.slots.layer(layer, key, value, end)
    prefix = stretch.slots.prefix and stretch.slots.prefix.layer(layer, key, value, stretch.slots.base)
    for at, new in enumerate((key, value)):
        kept[at][stretch.slot, :, stretch.position : end] = new
        own = kept[at][stretch.slot, :, :end]
        found.append(torch.cat([prefix[at][0], own], dim=1) if prefix else own)
    return found[0], found[1]


def _single(
    column: Column, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None
) -> torch.Tensor:
    """Return what the one new token of each sequence finds, shape [sequences, heads, size]."""
    heads, count, size = query.shape
    groups, high = key.shape[0], column.high
    share = heads // groups
    keys, values = column.slots.layer(layer, key, value, column.width)
    keys[column.places, :, column.positions] = key.transpose(0, 1)
    values[column.places, :, column.positions] = value.transpose(0, 1)
    query = query.transpose(0, 1)
    if column.has_holes:
        query = query.new_zeros(high, heads, size).index_copy_(0, column.places, query)
    # Whole slots, not those parts of them that are filled: only what is contiguous is multiplied without a copy.
    width = keys.shape[2]
    keys, values = keys[:high].view(high * groups, width, -1), values[:high].view(high * groups, width, -1)
    logits = torch.bmm(query.reshape(high * groups, share, size), keys.transpose(1, 2))
    logits = logits.view(high, groups, share, width)
    prefix, base = column.slots.prefix, column.slots.base
    if prefix:
        # All sequences' tokens at once: what they share is read once.
        together = query.reshape(high, groups, share, size).transpose(0, 1).reshape(groups, high * share, size)
        shared_keys, shared_values = (part[0] for part in prefix.layer(layer, key, value, base))
        before = torch.bmm(together, shared_keys.transpose(1, 2)).view(groups, high, share, base)
        logits = torch.cat([before.transpose(0, 1), logits], dim=-1)
    mask = column.mask(window, width, logits)
    weights = torch.softmax(logits if mask is None else logits.add_(mask), -1)
    found = torch.bmm(weights[..., base:].reshape(high * groups, share, width), values)
    found = found.view(high, groups, share, -1)
    if prefix:
        together = weights[..., :base].transpose(0, 1).reshape(groups, high * share, base)
        found += torch.bmm(together, shared_values).view(groups, high, share, -1).transpose(0, 1)
    found = found.view(high, heads, -1)
    return found[column.places] if column.has_holes else found


AttentionInterface.register(NAME, attend)
