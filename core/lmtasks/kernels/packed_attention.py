"""Attention within each sequence of a packed row, registered with transformers; used in training.

transformers' own packing (positions that begin again) attends over the whole row with a mask; this one costs in
proportion to the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

from lmtasks.kernels.attention import blockwise_causal_attention, check_attention_arguments, visible_mask
from lmtasks.kernels.torch_private import attention_implementation

PACKED_ATTENTION = "lmtasks_packed"
"""The name of this function in transformers' attention interface."""


@contextmanager
def packed_attention(module: PreTrainedModel) -> Iterator[None]:
    """Let a model attend within each sequence of a row, and restore its attention function at the end."""
    before = attention_implementation(module.config)
    module.set_attn_implementation(PACKED_ATTENTION)
    try:
        yield
    finally:
        module.set_attn_implementation(before)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend within each sequence of a row; a function of transformers' attention interface.

    The arguments are those of that interface: query of shape [1, heads, tokens, size], key and value with as many
    heads or fewer. `cu_seq_lens_q` holds where sequences begin, and the end of the last, shape [sequences + 1].

    Raises:
        TypeError: the architecture attends in a way that is not supported.
    """
    check_attention_arguments(softcap, s_aux)
    lengths = [query.shape[2]] if cu_seq_lens_q is None else cu_seq_lens_q.diff().tolist()
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # The backward pass of torch's own attention takes twice as long on a CPU as these products do.
    within = _blockwise if query.device.type == "cpu" else _scaled_dot_product
    sequences = zip(*(torch.split(each, lengths, dim=2) for each in (query, key, value)), strict=True)
    outputs = [within(queries, keys, values, scale, sliding_window, dropout) for queries, keys, values in sequences]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _blockwise(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None, dropout: float
) -> torch.Tensor:
    return blockwise_causal_attention(query[0] * scaling, key[0], value[0], window=window, dropout=dropout)[None]


def _scaled_dot_product(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None, dropout: float
) -> torch.Tensor:
    tokens, group = query.shape[2], query.shape[1] // key.shape[1]
    if group > 1:
        key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    mask = None
    if window is not None and tokens > window:
        mask = visible_mask(torch.arange(tokens, device=query.device)[:, None], tokens, window)
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, dropout_p=dropout
    )


AttentionInterface.register(PACKED_ATTENTION, _attend)
