"""Batches without padding: sequences one behind the other in a single row, none of which sees another.

Where an architecture cannot do that (`supports_packing`), a batch is padded instead, with the same result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from lmtasks.kernels.packed_attention import packed_attention
from lmtasks.kernels.probe import EquivalenceProbe
from lmtasks.training.common.dataset import TrainingExample

Batch = dict[str, Any]


def collate(sequences: Sequence[TrainingExample], *, packed: bool, pad_id: int, weight: float) -> Batch:
    """Return the batch of some sequences, as tensors.

    Args:
        sequences: at least one.
        packed: whether all are in a single row, or each in its own.
        pad_id: fills shorter rows.
        weight: weight of the loss, by which the sum over the targets is multiplied; 0: nothing is learned.

    Returns:
        The model's inputs, and beside them "targets", shape [learned], the tokens to be predicted; "target_positions",
        shape [learned], the indices in the flattened row or rows where they are predicted; "weight".
    """
    targets = [token for item in sequences for token in item.token_ids[-item.target_tokens :]]
    width = max(len(item.token_ids) for item in sequences)
    target_positions: list[int] = []
    starts = [0]
    for number, item in enumerate(sequences):
        start = starts[-1] if packed else number * width
        end = start + len(item.token_ids)
        # A token is predicted one position before it.
        target_positions += range(end - item.target_tokens - 1, end - 1)
        starts.append(end)
    batch: Batch = {
        "targets": torch.tensor(targets),
        "target_positions": torch.tensor(target_positions),
        "weight": torch.tensor(weight),
    }
    if packed:
        batch |= pack([torch.tensor(item.token_ids) for item in sequences])
    else:
        batch["input_ids"] = torch.full((len(sequences), width), pad_id)
        batch["attention_mask"] = torch.zeros((len(sequences), width), dtype=torch.long)
        for number, item in enumerate(sequences):
            batch["input_ids"][number, : len(item.token_ids)] = torch.tensor(item.token_ids)
            batch["attention_mask"][number, : len(item.token_ids)] = 1
    return batch


def pack(sequences: Sequence[torch.Tensor]) -> Batch:
    """Return a model's inputs for sequences of token ids in a single row."""
    lengths = [len(ids) for ids in sequences]
    device = sequences[0].device
    return {
        "input_ids": torch.cat(list(sequences))[None],
        "position_ids": torch.cat([torch.arange(length, device=device) for length in lengths])[None],
        "cu_seq_lens_q": torch.tensor([0, *lengths], device=device).cumsum(0, dtype=torch.int32),
    }


def answer_losses(model: torch.nn.Module, batch: Mapping[str, Any], *, supports_logits_to_keep: bool) -> torch.Tensor:
    """Return the cross-entropy of each target token, in nats, shape [learned].

    Args:
        model: a causal language model, or one wrapped by peft or for several processes.
        batch: from `collate`.
        supports_logits_to_keep: whether the model can compute logits at some positions alone.
    """
    inputs = {name: value for name, value in batch.items() if name not in ("targets", "target_positions", "weight")}
    if supports_logits_to_keep and "cu_seq_lens_q" in inputs:
        logits = model(**inputs, use_cache=False, logits_to_keep=batch["target_positions"]).logits[0]
    else:
        logits = model(**inputs, use_cache=False).logits.flatten(0, 1)[batch["target_positions"]]
    return functional.cross_entropy(logits.float(), batch["targets"], reduction="none")


def supports_packing(module: PreTrainedModel, *, supports_logits_to_keep: bool) -> bool:
    """Return whether a model computes for sequences in one row what it computes for each alone.

    The model must be in evaluation mode.
    """
    probe = EquivalenceProbe(module)

    def logprobs(sequences: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        inputs = pack(sequences)
        tokens = inputs["input_ids"].shape[1]
        keep = {"logits_to_keep": torch.arange(tokens, device=module.device)} if supports_logits_to_keep else {}
        logits = module(**inputs, use_cache=False, **keep).logits[0]
        return list(logits.float().log_softmax(-1).split([len(ids) for ids in sequences]))

    def compute() -> list[torch.Tensor]:
        first, second = probe.sequences
        with packed_attention(module):
            together = logprobs([first, second])
            beside_another = logprobs([first.flip(0), second])
        # Exactly: a sequence has no part in the sums of the next.
        if not torch.equal(together[1], beside_another[1]):
            raise ValueError("a sequence depends on the one before it")
        return together

    return probe.accepts(compute)
