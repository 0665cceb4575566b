"""Attention for tokens of many sequences in one row, whose earlier keys and values are in slots.

A model of transformers calls it through its attention interface. Each token attends to what its sequence shares with
others (a prefix, computed once) and to its sequence's own tokens; the two are merged by their logarithmic sums, as in
Flash-Decoding (Dao et al. 2023) and Hydragen (Juravsky et al. 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers import AttentionInterface

from lmtasks.inference.cache import Slots

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
    base: int = 0
    """Tokens of its prefix."""


@dataclass(slots=True)
class Column:
    """One new token of each of some sequences in the same slots."""

    slots: Slots
    tokens: torch.Tensor
    """Where they are in the row, shape [sequences]."""
    places: torch.Tensor
    """Their slots, shape [sequences]."""
    positions: torch.Tensor
    """How many tokens each has in its slot already, shape [sequences]."""
    high: int
    """The last slot that is used, plus one."""
    width: int
    """The longest of the sequences, the new token included."""
    _masks: dict[tuple[int | None, int], torch.Tensor | None] = field(default_factory=dict)

    def mask(self, window: int | None, width: int) -> torch.Tensor | None:
        """Return what is added to logits of shape [high, heads, width]; None: nothing."""
        if window is not None and self.width <= window:
            window = None
        if (window, width) not in self._masks:
            last = self.positions.new_zeros(self.high).index_copy_(0, self.places, self.positions)[:, None]
            ahead = torch.arange(width, device=self.positions.device)
            seen = ahead <= last
            if window is not None:
                seen &= ahead > last - window
            blocked = torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, -torch.inf)
            self._masks[window, width] = None if bool(seen.all()) else blocked[:, None]
        return self._masks[window, width]


@dataclass(slots=True)
class Shared:
    """A prefix with the tokens of the row whose sequences begin with it."""

    slots: Slots
    """Of one sequence, complete."""
    tokens: torch.Tensor
    """Where they are in the row, shape [tokens]."""
    positions: torch.Tensor
    """Of these tokens in their sequences, prefix included, shape [tokens]."""
    longest: int
    """The greatest of the positions."""


@dataclass(slots=True)
class Step:
    """What passes through the model at once."""

    stretches: Sequence[Stretch]
    columns: Sequence[Column]
    shared: Sequence[Shared] = ()


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
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    heads, tokens = query.shape[1:3]
    output = query.new_empty(1, heads, tokens, value.shape[-1])
    sums = query.new_empty(heads, tokens, dtype=torch.float32) if lmtasks_step.shared else None
    for part in lmtasks_step.stretches:
        here = slice(part.start, part.start + part.count)
        result, own = _stretch(
            part, layer, query[:, :, here], key[:, :, here], value[:, :, here], scale, sliding_window
        )
        output[:, :, here] = result
        if sums is not None:
            sums[:, here] = own[0]
    for column in lmtasks_step.columns:
        result, own = _column(column, layer, query, key, value, scale, sliding_window)
        output[0, :, column.tokens] = result.transpose(0, 1)
        if sums is not None:
            sums[:, column.tokens] = own.T
    for prefix in lmtasks_step.shared:
        _merge(prefix, layer, query, key, value, scale, sliding_window, output, sums)
    return output.transpose(1, 2), None


def _stretch(
    part: Stretch,
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    window: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    end = part.position + part.count
    keys, values = part.slots.layer(layer, key, value, end)
    keys[part.slot, :, part.position : end] = key[0]
    values[part.slot, :, part.position : end] = value[0]
    if part.position:
        key, value = keys[part.slot, None, :, :end], values[part.slot, None, :, :end]
    group = query.shape[1] // key.shape[1]
    if group > 1:
        key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    if part.position == 0 and (window is None or end <= window):
        return _products(query, key, value, scale, causal=True)
    ahead = torch.arange(end, device=query.device)
    own = ahead[part.position :, None]
    seen = ahead <= own
    if window is not None:
        seen &= ahead > own - window
    mask = query.new_zeros(seen.shape).masked_fill_(~seen, -torch.inf)
    return _products(query, key, value, scale, mask[None, None])


def _column(
    column: Column,
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    window: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what each sequence finds, shape [sequences, heads, size], and its logarithmic sum [sequences, heads]."""
    heads, groups = query.shape[1], key.shape[1]
    keys, values = column.slots.layer(layer, key, value, column.width)
    keys[column.places, :, column.positions] = key[0, :, column.tokens].transpose(0, 1)
    values[column.places, :, column.positions] = value[0, :, column.tokens].transpose(0, 1)
    asked = query.new_zeros(column.high, heads, query.shape[-1])
    asked.index_copy_(0, column.places, query[0, :, column.tokens].transpose(0, 1))
    # Whole rows of slots, not those parts that are filled: only what is contiguous is multiplied without a copy.
    width = keys.shape[2]
    keys = keys[: column.high].view(column.high * groups, width, -1)
    values = values[: column.high].view(column.high * groups, width, -1)
    logits = torch.bmm(asked.view(column.high * groups, heads // groups, -1), keys.transpose(1, 2)).float().mul_(scale)
    mask = column.mask(window, width)
    if mask is not None:
        logits.view(column.high, heads, width).add_(mask)
    sums = logits.logsumexp(-1)
    found = torch.bmm((logits - sums[..., None]).exp_().to(values.dtype), values)
    return found.view(column.high, heads, -1)[column.places], sums.view(column.high, heads)[column.places]


def _merge(
    prefix: Shared,
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    window: int | None,
    output: torch.Tensor,
    sums: torch.Tensor | None,
) -> None:
    """Add what tokens find in their prefix to what they found in their own sequences."""
    keys, values = prefix.slots.layer(layer, key, value, prefix.slots.width)
    heads, groups, count = query.shape[1], key.shape[1], len(prefix.tokens)
    asked = query[0, :, prefix.tokens].reshape(1, groups, heads // groups * count, -1)
    mask = None
    if window is not None and prefix.longest >= window:
        seen = torch.arange(prefix.slots.width, device=query.device) > prefix.positions[:, None] - window
        mask = query.new_zeros(seen.shape).masked_fill_(~seen, -torch.inf).repeat(heads // groups, 1)[None, None]
    result, found = _products(asked, keys, values, scale, mask)
    found = found.reshape(heads, count)
    if mask is not None:
        found = found.masked_fill(~seen.any(-1), -torch.inf)
    own = sums[:, prefix.tokens]  # type: ignore[index]
    share = torch.sigmoid(found - own)[..., None]
    before = output[0, :, prefix.tokens].float()
    output[0, :, prefix.tokens] = torch.lerp(before, result.reshape(heads, count, -1).float(), share).to(output.dtype)


def _products(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None = None,
    *,
    causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return softmax(scale * query key' + mask) value, and the logarithm of the softmax's denominator.

    Shapes are [rows, heads, queries, size], [rows, heads, keys, size]; the result's are [rows, heads, queries, size]
    and [rows, heads, queries] in float32.
    """
    if query.device.type == "cpu":
        if mask is not None:
            mask = mask.expand(query.shape[0], 1, query.shape[2], key.shape[2])
        # Of scaled_dot_product_attention, which does not give the logarithmic sums.
        result, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, attn_mask=mask, scale=scale
        )
        return result, sums
    logits = (query @ key.transpose(-1, -2)).float() * scale
    if causal:
        mask = torch.full(logits.shape[-2:], -torch.inf, device=logits.device).triu(1)
    if mask is not None:
        logits += mask
    sums = logits.logsumexp(-1)
    return (logits - sums[..., None]).exp_().to(value.dtype) @ value, sums


AttentionInterface.register(NAME, attend)
