"""A model made ready for the engine: its own attention, an adapter merged into weights of its own, tried before use."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Literal

import torch
from transformers import PreTrainedModel

from lmtasks.backends.native.attention import NAME, Column, Step, Stretch
from lmtasks.backends.native.kv_cache import Slots
from lmtasks.backends.native.multi_lora import Routes, is_adapted, merged_layer, pairs, route
from lmtasks.kernels.linear import optimize_linear_layers

Layout = Literal["shared", "packed", "int8"]

log = logging.getLogger("lmtasks.backends")
PREFIX, OWN, OTHER = 8, 13, 9
"""Tokens of the trial's sequences: a prefix that one shares, that one's own, and the other's."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.05}
"""Mean difference of log-probabilities, in nats, up to which the engine's count as the model's own."""


def engine_copy(
    module: PreTrainedModel,
    *,
    merged: str | None = None,
    routes: Routes | None = None,
    layout: Layout = "packed",
    texts: Sequence[Sequence[int]] = (),
) -> PreTrainedModel:
    """Return a model of the same weights whose attention is the engine's.

    Args:
        module: stays as it is; the copy shares its weights, but for those that an adapter changes.
        merged: peft's name of the adapter that is added to the weights; None: none of those on the module.
        routes: says at each step where an adapter answers, for those that are not merged; None: nowhere.
        layout: of the linear layers: "shared" with the module, "packed" for the hardware, or rounded to "int8".
        texts: by which it is decided how to round; tokens of each.
    """
    shared = {id(weight): weight for weight in [*module.parameters(), *module.buffers()]}
    packed: PreTrainedModel = copy.deepcopy(module, shared)
    adapters = {}
    for name, layer in list(packed.named_modules()):
        if is_adapted(layer):
            adapters[name] = pairs(layer, module.dtype)
            parent = packed.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], merged_layer(layer, merged))
    if layout != "shared":
        optimize_linear_layers(packed, int8=layout == "int8", texts=texts)
    if routes is not None:
        route(packed, adapters, routes)
    packed.set_attn_implementation(NAME)
    return packed.eval()


class Trial:
    """Two sequences, one of which begins with a prefix that was computed before it, that pass in parts.

    They have to get the likelihoods that the model gives them whole.
    """

    @torch.inference_mode()
    def __init__(self, module: PreTrainedModel) -> None:
        """Take the model itself, with no adapter active; it is asked now."""
        self.device, self.dtype, self.name = module.device, module.dtype, type(module).__name__
        vocabulary = module.get_input_embeddings().weight.shape[0]
        drawn = torch.randint(0, vocabulary, (PREFIX + OWN + OTHER,), generator=torch.Generator().manual_seed(0))
        drawn = drawn.to(self.device)
        self.sequences = drawn[: PREFIX + OWN], drawn[PREFIX + OWN :]
        self.can_pass = not getattr(module, "_is_stateful", False) and module._supports_attention_backend
        self.expected = [
            module(input_ids=ids[None], use_cache=False).logits[0].float().log_softmax(-1) for ids in self.sequences
        ]

    @property
    def is_finite(self) -> bool:
        """Whether the model computes a number anywhere; False: its weights are damaged, or overflow."""
        return any(bool(own.isfinite().any()) for own in self.expected)

    @torch.inference_mode()
    def bytes_per_token(self, packed: PreTrainedModel) -> int | None:
        """Return what keys and values of a token take; None: the engine cannot run this architecture.

        Args:
            packed: from `engine_copy`, without an adapter.
        """
        if not self.can_pass:
            return None
        prefix = Slots(1, PREFIX)
        try:
            found = self._in_parts(packed, prefix)
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            log.debug("the engine cannot run %s: %s", self.name, error)
            return None
        one, other = self.expected[0][PREFIX:], self.expected[1]
        whole = torch.cat([one[:7], other[:5], one[7:-1], other[5:-1], one[-1:], other[-1:]])
        # Equal ones may be -inf: of tokens that a model masks.
        difference = float(torch.where(found == whole, 0, found - whole).abs().mean())
        log.debug("the engine and %s differ by %.2g nats on average", self.name, difference)
        return prefix.bytes // PREFIX if difference <= TOLERANCE.get(self.dtype, 1e-3) else None

    def _in_parts(self, packed: PreTrainedModel, prefix: Slots) -> torch.Tensor:
        """Return log-probabilities of all tokens behind the prefix, in the order in which they pass."""
        one, other = self.sequences

        def forward(ids: torch.Tensor, positions: list[int], step: Step) -> torch.Tensor:
            output = packed(
                input_ids=ids[None],
                position_ids=torch.tensor([positions], device=self.device),
                use_cache=False,
                logits_to_keep=torch.arange(len(ids), device=self.device),
                lmtasks_step=step,
            )
            logits: torch.Tensor = output.logits[0]
            return logits.float().log_softmax(-1)

        behind, slots = Slots(1, OWN, prefix), Slots(2, OTHER)
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
        columns = []
        for at, (kept, slot, tokens) in enumerate([(behind, 0, OWN - 1), (slots, 1, OTHER - 1)]):
            places, positions = (torch.tensor([number], device=self.device) for number in (slot, tokens))
            columns.append(Column(at, kept, places, positions, high=slot + 1, width=tokens + 1))
        last = torch.stack([one[-1], other[-1]])
        found.append(forward(last, [PREFIX + OWN - 1, OTHER - 1], Step([], columns)))
        return torch.cat(found)
