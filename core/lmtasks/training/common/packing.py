"""Batches without padding: sequences one behind the other in a single row, none of which sees another.

Where an architecture cannot do that (a probe tells), a batch is padded instead, with the same result.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

from lmtasks.kernels.attention import blockwise_causal_attention, visible_mask
from lmtasks.training.common.dataset import TrainingExample

ATTENTION = "lmtasks_packed"
"""The name that our attention function has among those of transformers."""
PROBE_TOKENS = 128
PROBE_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""Mean difference of log-probabilities, in nats, up to which packed and separate sequences count as equal.

In bfloat16 the logits of attention are rounded here and not in torch's own, which the separate ones pass through."""
log = logging.getLogger("lmtasks.training")

Batch = dict[str, Any]


def collate(sequences: Sequence[TrainingExample], *, packed: bool, pad_id: int, weight: float) -> Batch:
    """Return the batch of some sequences, as tensors.

    Args:
        sequences: at least one.
        packed: in a single row of all their tokens, or in a row each.
        pad_id: fills shorter rows.
        weight: of the loss, by which the sum over the answers' tokens is multiplied; 0: nothing is learned.

    Returns:
        The model's inputs, and beside them "targets", shape [target tokens], the tokens to be predicted;
        "target_positions", shape [target tokens], where in the flattened row or rows they are predicted; "weight".
    """
    targets = [token for item in sequences for token in item.token_ids[-item.target_tokens :]]
    width = max(len(item.token_ids) for item in sequences)
    target_positions: list[int] = []
    starts = [0]
    for number, item in enumerate(sequences):
        start = starts[-1] if packed else number * width
        end = start + len(item.token_ids)
        # What predicts a token stands one place before it.
        target_positions += range(end - item.target_tokens - 1, end - 1)
        starts.append(end)
    batch: Batch = {
        "targets": torch.tensor(targets),
        "target_positions": torch.tensor(target_positions),
        "weight": torch.tensor(weight),
    }
    if packed:
        batch["input_ids"] = torch.tensor([[token for item in sequences for token in item.token_ids]])
        batch["position_ids"] = torch.cat([torch.arange(len(item.token_ids)) for item in sequences])[None]
        batch["cu_seq_lens_q"] = torch.tensor(starts, dtype=torch.int32)
    else:
        batch["input_ids"] = torch.full((len(sequences), width), pad_id)
        batch["attention_mask"] = torch.zeros((len(sequences), width), dtype=torch.long)
        for number, item in enumerate(sequences):
            batch["input_ids"][number, : len(item.token_ids)] = torch.tensor(item.token_ids)
            batch["attention_mask"][number, : len(item.token_ids)] = 1
    return batch


def answer_losses(model: torch.nn.Module, batch: Mapping[str, Any], *, supports_logits_to_keep: bool) -> torch.Tensor:
    """Return the cross-entropy of each of the answers' tokens, in nats, shape [learned].

    Args:
        model: a causal language model, or one wrapped by peft or for several processes.
        batch: from `collate`.
        only_answers: whether the model can compute logits at some places alone (`logits_to_keep`).
    """
    inputs = {name: value for name, value in batch.items() if name not in ("targets", "target_positions", "weight")}
    if supports_logits_to_keep and "cu_seq_lens_q" in inputs:
        logits = model(**inputs, use_cache=False, logits_to_keep=batch["target_positions"]).logits[0]
    else:
        logits = model(**inputs, use_cache=False).logits.flatten(0, 1)[batch["target_positions"]]
    return functional.cross_entropy(logits.float(), batch["targets"], reduction="none")


@torch.no_grad()
def can_pack(module: PreTrainedModel, sequences: Sequence[TrainingExample], *, supports_logits_to_keep: bool) -> bool:
    """Tell whether a model gives sequences in one row the likelihoods that it gives them alone.

    Some architectures carry state from token to token, or attend in a way of their own. The model must be in
    evaluation mode.
    """
    few = [
        TrainingExample(item.token_ids[-PROBE_TOKENS:], min(item.target_tokens, PROBE_TOKENS // 2), False)
        for item in sequences[:3]
    ]

    def losses(items: Sequence[TrainingExample], *, packed: bool) -> torch.Tensor:
        batch = collate(items, packed=packed, pad_id=0, weight=1.0)
        on_device = {name: value.to(module.device) for name, value in batch.items()}
        return answer_losses(module, on_device, supports_logits_to_keep=supports_logits_to_keep)

    if getattr(module, "_is_stateful", False) or not module._supports_attention_backend:
        return False
    other = TrainingExample(few[0].token_ids[::-1], few[0].target_tokens, False)
    alone = torch.cat([losses([item], packed=False) for item in few])
    try:
        with packed_attention(module):
            together = losses(few, packed=True)
            beside_another = losses([other, *few[1:]], packed=True)
    except (TypeError, ValueError, RuntimeError) as error:  # the architecture's code takes no such arguments
        log.debug("sequences cannot be packed: %s", error)
        return False
    # Exactly: what stands before a sequence has no part in its sums.
    untouched = torch.equal(together[few[0].target_tokens :], beside_another[few[0].target_tokens :])
    return untouched and bool((together - alone).abs().mean() <= PROBE_TOLERANCE.get(module.dtype, 1e-4))


@contextmanager
def packed_attention(module: PreTrainedModel) -> Iterator[None]:
    """Let a model attend within each sequence of a row, and set back what it did before."""
    before = module.config._attn_implementation
    module.set_attn_implementation(ATTENTION)
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
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend within each sequence of a row, as transformers' attention interface asks for it.

    The arguments are those of that interface: query of shape [1, heads, tokens, size], key and value with as many
    heads or fewer. `cu_seq_lens_q` holds where sequences begin, and the end of the last, shape [sequences + 1].
    """
    lengths = [query.shape[2]] if cu_seq_lens_q is None else cu_seq_lens_q.diff().tolist()
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # Of torch's own attention the way back takes twice as long on a CPU as these products do.
    within = _causal if query.device.type == "cpu" else _flash
    parts = zip(*(torch.split(each, lengths, dim=2) for each in (query, key, value)), strict=True)
    found = [within(one, keys, values, scale, sliding_window, dropout) for one, keys, values in parts]
    return torch.cat(found, dim=2).transpose(1, 2).contiguous(), None


def _causal(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, window: int | None, dropout: float
) -> torch.Tensor:
    return blockwise_causal_attention(query[0] * scaling, key[0], value[0], window=window, dropout=dropout)[None]


def _flash(
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


AttentionInterface.register(ATTENTION, _attend)
