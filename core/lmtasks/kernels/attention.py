"""Causal attention of one sequence, in blocks of its tokens: on a CPU faster than torch's own, forward and backward."""

from __future__ import annotations

from functools import cache

import torch
from torch.nn import functional

BLOCK = 128
"""New tokens of a sequence that attend at once: what comes after the last of them is not computed for the others."""


def blockwise_causal_attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    window: int | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Return what the last tokens of a sequence find, shape [heads, tokens, size].

    Args:
        query: scaled, shape [heads, tokens, size].
        keys: of the whole sequence, shape [groups, all tokens, size].
        values: likewise; their size may differ.
        window: how many of the last tokens each one sees, itself included; None: all.
        dropout: share of the weights that are left out.
    """
    count, earlier = query.shape[1], keys.shape[1] - query.shape[1]
    found = [
        _block(query[:, start : start + BLOCK], keys, values, earlier + start, window, dropout)
        for start in range(0, count, BLOCK)
    ]
    return torch.cat(found, dim=1) if len(found) > 1 else found[0]


def _block(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, first: int, window: int | None, dropout: float
) -> torch.Tensor:
    """Return the same for a block, whose first token has a position."""
    heads, count, size = query.shape
    groups, end = keys.shape[0], first + count
    begin = 0 if window is None else max(0, first + 1 - window)
    keys, values = keys[:, begin:end], values[:, begin:end]
    logits = torch.bmm(query.reshape(groups, heads // groups * count, size), keys.transpose(1, 2))
    each = logits.view(groups, heads // groups, count, end - begin)
    each[..., first - begin :] += _later(query.device, query.dtype)[:count, :count]
    if window is not None and end - begin > window:
        own = torch.arange(first - begin, end - begin, device=query.device)[:, None]
        each.masked_fill_(~visible_mask(own, end - begin, window), -torch.inf)
    weights = torch.softmax(logits, -1)
    if dropout:
        weights = functional.dropout(weights, dropout)
    return torch.bmm(weights, values).view(heads, count, -1)


@cache
def _later(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return what keeps tokens of a block from seeing later ones, shape [BLOCK, BLOCK]."""
    return torch.full((BLOCK, BLOCK), -torch.inf, device=device, dtype=dtype).triu_(1)


def visible_mask(own: torch.Tensor, width: int, window: int | None) -> torch.Tensor:
    """Return which positions a token at its own position sees, shape [tokens, width].

    Args:
        own: positions of tokens, shape [tokens, 1].
        width: positions that there are.
        window: how many of the last a token sees, itself included; None: all.
    """
    ahead = torch.arange(width, device=own.device)
    reached = ahead <= own
    return reached if window is None else reached & (ahead > own - window)
