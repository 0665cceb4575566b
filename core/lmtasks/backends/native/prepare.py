"""A model prepared for the native engine: its own attention function, and an adapter merged into its own weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import torch
from transformers import PreTrainedModel

from lmtasks.backends.native.attention import CACHED_ATTENTION, DecodeBatch, ForwardBatch, PrefillChunk
from lmtasks.backends.native.kv_cache import KVBlock
from lmtasks.backends.native.multi_lora import (
    AdapterTokens,
    install_adapters,
    is_adapted,
    lora_matrices,
    merged_layer,
)
from lmtasks.kernels.linear import optimize_linear_layers
from lmtasks.kernels.probe import LENGTHS, EquivalenceProbe

Layout = Literal["shared", "packed", "int8"]
"""Linear layers that are shared with the original model, prepacked for the hardware, or quantized."""
PREFIX = 8
"""Tokens of the probe's first sequence that are computed before it, as a shared prefix."""


def engine_copy(
    module: PreTrainedModel,
    *,
    merged: str | None = None,
    adapter_tokens: AdapterTokens | None = None,
    layout: Layout = "packed",
    texts: Sequence[Sequence[int]] = (),
) -> PreTrainedModel:
    """Return a model of the same weights whose attention is the engine's.

    Args:
        module: stays as it is; the copy shares its weights, but for those that an adapter changes.
        merged: peft's name of the adapter that is added to the weights; None: none of those on the module.
        adapter_tokens: says at each step which tokens are an adapter's, for adapters that are not merged; None: there
            are none.
        layout: layout of the linear layers.
        texts: token ids of calibration texts, for int8.
    """
    shared = {id(weight): weight for weight in [*module.parameters(), *module.buffers()]}
    prepared: PreTrainedModel = copy.deepcopy(module, shared)
    adapters = {}
    for name, layer in list(prepared.named_modules()):
        if is_adapted(layer):
            adapters[name] = lora_matrices(layer, module.dtype)
            parent = prepared.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], merged_layer(layer, merged))
    if layout != "shared":
        optimize_linear_layers(prepared, int8=layout == "int8", texts=texts)
    if adapter_tokens is not None:
        install_adapters(prepared, adapters, adapter_tokens)
    prepared.set_attn_implementation(CACHED_ATTENTION)
    return prepared.eval()


def probe_kv_bytes(probe: EquivalenceProbe, prepared: PreTrainedModel) -> int | None:
    """Return the bytes that keys and values of a token take; None: the engine cannot run this architecture.

    The probe's sequences pass in parts: a prefix that one of them shares, chunks of both side by side, and the last
    token of both as in decoding.

    Args:
        probe: a probe of the original model.
        prepared: from `engine_copy`, without an adapter.
    """
    prefix = KVBlock(1, PREFIX)
    return prefix.bytes // PREFIX if probe.accepts(lambda: _run_split(probe, prepared, prefix)) else None


def _run_split(probe: EquivalenceProbe, prepared: PreTrainedModel, prefix: KVBlock) -> list[torch.Tensor]:
    """Return log-probabilities behind all tokens of the probe's sequences, but for the first one's prefix."""
    first, second = probe.sequences
    behind_prefix, length = LENGTHS[0] - PREFIX, LENGTHS[1]

    def forward(ids: torch.Tensor, positions: list[int], batch: ForwardBatch) -> torch.Tensor:
        output = prepared(
            input_ids=ids[None],
            position_ids=torch.tensor([positions], device=probe.device),
            use_cache=False,
            logits_to_keep=torch.arange(len(ids), device=probe.device),
            lmtasks_batch=batch,
        )
        logits: torch.Tensor = output.logits[0]
        return logits.float().log_softmax(-1)

    first_block, second_block = KVBlock(1, behind_prefix, prefix), KVBlock(2, length)
    forward(first[:PREFIX], list(range(PREFIX)), ForwardBatch([PrefillChunk(0, PREFIX, prefix, 0, 0)], []))
    first_parts, second_parts = [], []
    for (start, end), (other_start, other_end) in (((0, 7), (0, 5)), ((7, behind_prefix - 1), (5, length - 1))):
        count, other_count = end - start, other_end - other_start
        positions = list(range(PREFIX + start, PREFIX + end))
        other_positions = list(range(other_start, other_end))
        chunks = [
            PrefillChunk(0, count, first_block, 0, start),
            PrefillChunk(count, other_count, second_block, 1, other_start),
        ]
        ids = torch.cat([first[positions], second[other_positions]])
        logprobs = forward(ids, positions + other_positions, ForwardBatch(chunks, []))
        first_parts.append(logprobs[:count])
        second_parts.append(logprobs[count:])
    decode = []
    last_tokens = [(first_block, 0, behind_prefix - 1), (second_block, 1, length - 1)]
    for start, (block, slot, tokens) in enumerate(last_tokens):
        slots, positions_in_slot = (torch.tensor([number], device=probe.device) for number in (slot, tokens))
        decode.append(DecodeBatch(start, block, slots, positions_in_slot, high=slot + 1, width=tokens + 1))
    last = torch.stack([first[-1], second[-1]])
    logprobs = forward(last, [LENGTHS[0] - 1, length - 1], ForwardBatch([], decode))
    return [torch.cat([*first_parts, logprobs[:1]]), torch.cat([*second_parts, logprobs[1:]])]
