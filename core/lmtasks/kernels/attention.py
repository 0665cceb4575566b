"""Attention on plain tensors: causal within one sequence, in blocks, and one new token for each of many sequences.

The native engine and packed training share these functions. On a CPU the blockwise one is faster than torch's own,
forward and backward.
"""

from __future__ import annotations

from functools import cache

import torch
from torch.nn import functional

BLOCK = 128
"""Query tokens computed at once: keys behind the last of them are not read."""


def blockwise_causal_attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    window: int | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Return the attention outputs of the last tokens of a sequence, shape [heads, tokens, size].

    Args:
        query: scaled, shape [heads, tokens, size].
        keys: keys of the whole sequence, shape [groups, all tokens, size].
        values: values of the whole sequence, of the same shape but for their size.
        window: number of last tokens that each token sees, itself included; None: all.
        dropout: share of the attention weights that is dropped.
    """
    count, earlier = query.shape[1], keys.shape[1] - query.shape[1]
    blocks = [
        _block(query[:, start : start + BLOCK], keys, values, earlier + start, window, dropout)
        for start in range(0, count, BLOCK)
    ]
    return torch.cat(blocks, dim=1) if len(blocks) > 1 else blocks[0]


def _block(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, first: int, window: int | None, dropout: float
) -> torch.Tensor:
    """Return the attention outputs of a block of tokens, of which `first` is the first one's position."""
    heads, count, size = query.shape
    groups, end = keys.shape[0], first + count
    begin = 0 if window is None else max(0, first + 1 - window)
    keys, values = keys[:, begin:end], values[:, begin:end]
    logits = torch.bmm(query.reshape(groups, heads // groups * count, size), keys.transpose(1, 2))
    by_token = logits.view(groups, heads // groups, count, end - begin)
    by_token[..., first - begin :] += _causal_mask(query.device, query.dtype)[:count, :count]
    if window is not None and end - begin > window:
        positions = torch.arange(first - begin, end - begin, device=query.device)[:, None]
        by_token.masked_fill_(~visible_mask(positions, end - begin, window), -torch.inf)
    weights = torch.softmax(logits, -1)
    if dropout:
        weights = functional.dropout(weights, dropout)
    return torch.bmm(weights, values).view(heads, count, -1)


@cache
def _causal_mask(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive mask that hides later tokens of a block from earlier ones, shape [BLOCK, BLOCK]."""
    return torch.full((BLOCK, BLOCK), -torch.inf, device=device, dtype=dtype).triu_(1)


def visible_mask(positions: torch.Tensor, width: int, window: int | None) -> torch.Tensor:
    """Return which of the first `width` positions tokens see, shape [tokens, width].

    Args:
        positions: positions of the tokens, shape [tokens, 1].
        width: number of positions.
        window: number of last tokens that each token sees, itself included; None: all.
    """
    columns = torch.arange(width, device=positions.device)
    visible = columns <= positions
    return visible if window is None else visible & (columns > positions - window)


def decode_attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    mask: torch.Tensor | None,
    prefix: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return the attention outputs of one new token of each sequence, shape [sequences, heads, value size].

    Args:
        query: scaled, shape [sequences, heads, size].
        keys: contiguous, shape [sequences, groups, width, size].
        values: contiguous, shape [sequences, groups, width, value size].
        mask: added to the logits, of which the last dimension is prefix tokens + width; None: all tokens are visible.
        prefix: keys and values that all sequences begin with, each of shape [groups, prefix tokens, size]: read once
            for all sequences.
    """
    count, heads, size = query.shape
    groups, width = keys.shape[1], keys.shape[2]
    share = heads // groups
    keys, values = keys.view(count * groups, width, -1), values.view(count * groups, width, -1)
    logits = torch.bmm(query.reshape(count * groups, share, size), keys.transpose(1, 2))
    logits = logits.view(count, groups, share, width)
    prefix_tokens = 0
    if prefix:
        prefix_keys, prefix_values = prefix
        prefix_tokens = prefix_keys.shape[1]
        by_group = query.reshape(count, groups, share, size).transpose(0, 1).reshape(groups, count * share, size)
        prefix_logits = torch.bmm(by_group, prefix_keys.transpose(1, 2)).view(groups, count, share, prefix_tokens)
        logits = torch.cat([prefix_logits.transpose(0, 1), logits], dim=-1)
    weights = torch.softmax(logits if mask is None else logits.add_(mask), -1)
    outputs = torch.bmm(weights[..., prefix_tokens:].reshape(count * groups, share, width), values)
    outputs = outputs.view(count, groups, share, -1)
    if prefix:
        by_group = weights[..., :prefix_tokens].transpose(0, 1).reshape(groups, count * share, prefix_tokens)
        outputs += torch.bmm(by_group, prefix_values).view(groups, count, share, -1).transpose(0, 1)
    return outputs.view(count, heads, -1)


def check_attention_arguments(softcap: float | None, s_aux: torch.Tensor | None) -> None:
    """Refuse the variants of attention that these functions do not compute.

    Args:
        softcap: limit of the attention logits (Gemma 2).
        s_aux: attention sinks (gpt-oss).

    Raises:
        TypeError: one of them is set.
    """
    if softcap is not None or s_aux is not None:
        raise TypeError("attention with soft-capped logits or attention sinks is not supported")
