"""LoRA adapters beside a base: several in one row of tokens, each on the tokens of its own sequences."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""By adapter, its matrices on a layer: A, shape [rank, inputs], and B, shape [outputs, rank], scaled."""
Routes = dict[str, torch.Tensor]
"""By adapter, which places of the row it answers; those of none are the base's."""


class MultiLoRALinear(nn.Module):
    """A linear layer with the low-rank matrices of adapters, each added at its own places."""

    def __init__(self, layer: nn.Module, pairs: Pairs, routes: Routes) -> None:
        """Take a layer, adapters for it, and what says at each call where they answer."""
        super().__init__()
        self.layer, self.pairs, self.routes = layer, pairs, routes

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return outputs, shape [..., outputs], of inputs of all places of the row, shape [..., inputs]."""
        found: torch.Tensor = self.layer(inputs)
        rows, sums = inputs.flatten(0, -2), found.flatten(0, -2)
        for name, places in self.routes.items():
            if name in self.pairs:
                a, b = self.pairs[name]
                sums.index_add_(0, places, functional.linear(functional.linear(rows[places], a), b))
        return found


def is_adapted(layer: nn.Module) -> TypeGuard[LoraLayer]:
    """Tell whether a layer is peft's, with adapters; importing peft to ask would take a second."""
    return hasattr(layer, "lora_A")


def is_routable(module: PreTrainedModel, adapter: str) -> bool:
    """Tell whether an adapter, by peft's name, is but a product of two matrices on linear layers of the body."""
    head = module.get_output_embeddings()
    for layer in module.modules():
        if not is_adapted(layer):
            continue
        if adapter in layer.lora_A and layer is head:
            return False  # it is handed the places whose logits are wanted, not the whole row
        if adapter in layer.lora_embedding_A or layer.use_dora.get(adapter):
            return False
        if adapter in layer.lora_A and not isinstance(layer.get_base_layer(), nn.Linear | Conv1D):
            return False
    return True


def pairs(layer: LoraLayer, dtype: torch.dtype) -> Pairs:
    """Return the matrices of all adapters on a layer, as `MultiLoRALinear` takes them."""
    found: Pairs = {}
    for name in layer.lora_A:
        a: torch.Tensor = layer.lora_A[name].weight  # type: ignore[assignment]
        b: torch.Tensor = layer.lora_B[name].weight  # type: ignore[assignment]
        found[name] = a.detach().to(dtype), (b.detach() * layer.scaling[name]).to(dtype)
    return found


def route(module: PreTrainedModel, adapters: dict[str, Pairs], routes: Routes) -> None:
    """Put the matrices of adapters beside the layers of a model, by the layers' names."""
    for name, own in adapters.items():
        if own:
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, MultiLoRALinear(module.get_submodule(name), own, routes))


@torch.no_grad()
def merged_layer(layer: LoraLayer, adapter: str | None) -> torch.nn.Module:
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
