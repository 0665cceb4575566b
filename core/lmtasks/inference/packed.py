"""A model made ready for the engine: its own attention, an adapter merged into weights of its own, tried before use."""

from __future__ import annotations

import copy
import logging

import torch
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from lmtasks.inference.attention import NAME, Column, Step, Stretch
from lmtasks.inference.cache import Slots

log = logging.getLogger("lmtasks.inference")
PREFIX, OWN, OTHER = 8, 13, 9
"""Tokens of the trial's sequences: a prefix that one shares, that one's own, and the other's."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.05}
"""Mean difference of log-probabilities, in nats, up to which the engine's count as the model's own."""


def packed_copy(module: PreTrainedModel, adapter: str | None) -> PreTrainedModel:
    """Return a model of the same weights whose attention is the engine's.

    Args:
        module: stays as it is; the copy shares its weights, but for those that an adapter changes.
        adapter: peft's name of the one that is merged; None: none of those that are on the module.
    """
    shared = {id(weight): weight for weight in [*module.parameters(), *module.buffers()]}
    packed: PreTrainedModel = copy.deepcopy(module, shared)
    for name, layer in list(packed.named_modules()):
        if isinstance(layer, LoraLayer):
            parent = packed.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], _merged(layer, adapter))
    packed.set_attn_implementation(NAME)
    return packed.eval()


@torch.no_grad()
def _merged(layer: LoraLayer, adapter: str | None) -> torch.nn.Module:
    """Return the layer below adapters, with one of them added to its weight."""
    base: torch.nn.Module = layer.get_base_layer()
    if adapter is None or not (adapter in layer.lora_A or adapter in layer.lora_embedding_A):
        return base
    weight: torch.nn.Parameter = base.weight  # type: ignore[assignment]
    # In float32: an adapter moves weights by less than bfloat16 can add one by one.
    changed = weight.float() + layer.get_delta_weight(adapter).float()  # type: ignore[attr-defined]
    if layer.use_dora.get(adapter):
        # Liu et al. 2024, "DoRA": each output's weights keep a length that was learned.
        over = 0 if getattr(layer, "fan_in_fan_out", False) else 1
        length: torch.Tensor = layer.lora_magnitude_vector[adapter].weight  # type: ignore[assignment]
        changed = changed * (length.float() / changed.norm(dim=over)).unsqueeze(over)
    result = copy.copy(base)
    result._parameters = {**base._parameters, "weight": torch.nn.Parameter(changed.to(weight.dtype), False)}
    return result


@torch.inference_mode()
def try_packed(packed: PreTrainedModel, module: PreTrainedModel) -> int | None:
    """Return how many bytes the keys and values of a token take; None: the engine cannot run this architecture.

    Two sequences, one of which begins with a prefix that was computed before it, pass in parts, and have to get the
    likelihoods that the model gives them whole.

    Args:
        packed: from `packed_copy`, without an adapter.
        module: the model itself, with no adapter active.
    """
    if getattr(module, "_is_stateful", False) or not module._supports_attention_backend:
        return None
    device, dtype = module.device, module.dtype
    vocabulary = module.get_input_embeddings().weight.shape[0]
    drawn = torch.randint(0, vocabulary, (PREFIX + OWN + OTHER,), generator=torch.Generator().manual_seed(0)).to(device)
    one, other = drawn[: PREFIX + OWN], drawn[PREFIX + OWN :]
    prefix = Slots(1, PREFIX)
    behind, slots = Slots(1, OWN, prefix), Slots(2, OTHER)

    def forward(ids: torch.Tensor, positions: list[int], step: Step) -> torch.Tensor:
        output = packed(
            input_ids=ids[None],
            position_ids=torch.tensor([positions], device=device),
            use_cache=False,
            logits_to_keep=torch.arange(len(ids), device=device),
            lmtasks_step=step,
        )
        logits: torch.Tensor = output.logits[0]
        return logits.float().log_softmax(-1)

    try:
        forward(one[:PREFIX], list(range(PREFIX)), Step([Stretch(0, PREFIX, prefix, 0, 0)], []))
        found = []
        for start, end in ((0, 7), (7, OWN - 1)):  # beside parts of the other one
            beside = slice(0, 5) if start == 0 else slice(5, OTHER - 1)
            own, others = list(range(PREFIX + start, PREFIX + end)), list(range(beside.start, beside.stop))
            parts = [
                Stretch(0, end - start, behind, 0, start),
                Stretch(end - start, len(others), slots, 1, beside.start),
            ]
            found.append(forward(torch.cat([one[own], other[beside]]), own + others, Step(parts, [])))
        columns = [
            Column(at, kept, torch.tensor([slot], device=device), torch.tensor([tokens], device=device), slot + 1, tokens + 1)
            for at, (kept, slot, tokens) in enumerate([(behind, 0, OWN - 1), (slots, 1, OTHER - 1)])
        ]  # fmt: skip
        last = torch.stack([one[-1], other[-1]])
        found.append(forward(last, [PREFIX + OWN - 1, OTHER - 1], Step([], columns)))
        expected = [
            module(input_ids=ids[None], use_cache=False).logits[0].float().log_softmax(-1) for ids in (one, other)
        ]
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        log.debug("the engine cannot run %s: %s", type(module).__name__, error)
        return None
    own = expected[0][PREFIX:]
    whole = torch.cat([own[:7], expected[1][:5], own[7:-1], expected[1][5:-1], own[-1:], expected[1][-1:]])
    difference = float((torch.cat(found) - whole).abs().mean())
    log.debug("the engine and %s differ by %.2g nats on average", type(module).__name__, difference)
    if not difference <= TOLERANCE.get(dtype, 1e-3):
        return None
    return prefix.bytes // PREFIX
