"""Several LoRA adapters in one batch: each is added to the tokens of its own sequences."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lmtasks.compat.architectures import set_parameter

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

LoRAMatrices = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""By adapter, its matrices for a layer: A, shape [rank, inputs], and B, shape [outputs, rank], scaled."""
AdapterTokens = dict[str, torch.Tensor]
"""By adapter, the indices of its tokens in the row; all others are the base model's."""


class MultiLoRALinear(nn.Module):
    """A linear layer with the low-rank matrices of adapters, each added to its own tokens."""

    def __init__(self, layer: nn.Module, matrices: LoRAMatrices, adapter_tokens: AdapterTokens) -> None:
        """Add adapters to a layer.

        Args:
            layer: the base model's layer.
            matrices: of all adapters on it.
            adapter_tokens: is filled anew before each forward pass.
        """
        super().__init__()
        self.layer, self.matrices, self.adapter_tokens = layer, matrices, adapter_tokens

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return outputs, shape [..., outputs], for the inputs of all tokens of the row, shape [..., inputs]."""
        outputs: torch.Tensor = self.layer(inputs)
        rows, sums = inputs.flatten(0, -2), outputs.flatten(0, -2)
        for name, tokens in self.adapter_tokens.items():
            if name in self.matrices:
                a, b = self.matrices[name]
                sums.index_add_(0, tokens, functional.linear(functional.linear(rows[tokens], a), b))
        return outputs


def is_adapted(layer: nn.Module) -> TypeGuard[LoraLayer]:
    """Return whether a layer is peft's, with adapters; importing peft for this would take a second."""
    return hasattr(layer, "lora_A")


def can_batch_adapter(module: PreTrainedModel, adapter: str) -> bool:
    """Return whether an adapter, by peft's name, is only a product of two matrices on linear layers of the body."""
    head = module.get_output_embeddings()
    for layer in module.modules():
        if not is_adapted(layer):
            continue
        if adapter in layer.lora_A and layer is head:
            return False  # it is given the tokens whose logits are kept, not the whole row
        if adapter in layer.lora_embedding_A or layer.use_dora.get(adapter):
            return False
        if adapter in layer.lora_A and not isinstance(layer.get_base_layer(), nn.Linear | Conv1D):
            return False
    return True


def lora_matrices(layer: LoraLayer, dtype: torch.dtype) -> LoRAMatrices:
    """Return the matrices of all adapters on a layer, as `MultiLoRALinear` takes them."""
    matrices: LoRAMatrices = {}
    for name in layer.lora_A:
        a: torch.Tensor = layer.lora_A[name].weight  # type: ignore[assignment]
        b: torch.Tensor = layer.lora_B[name].weight  # type: ignore[assignment]
        matrices[name] = a.detach().to(dtype), (b.detach() * layer.scaling[name]).to(dtype)
    return matrices


def install_adapters(module: PreTrainedModel, adapters: dict[str, LoRAMatrices], adapter_tokens: AdapterTokens) -> None:
    """Add the matrices of adapters to the layers of a model, by the layers' names."""
    for name, matrices in adapters.items():
        if matrices:
            parent, _, last = name.rpartition(".")
            layer = MultiLoRALinear(module.get_submodule(name), matrices, adapter_tokens)
            setattr(module.get_submodule(parent), last, layer)


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
        # Liu et al. 2024, "DoRA": each output's weights keep a magnitude that was trained.
        dim = 0 if getattr(layer, "fan_in_fan_out", False) else 1
        magnitude: torch.Tensor = layer.lora_magnitude_vector[adapter].weight  # type: ignore[assignment]
        changed = changed * (magnitude.float() / changed.norm(dim=dim)).unsqueeze(dim)
    merged = copy.copy(base)
    set_parameter(merged, "weight", torch.nn.Parameter(changed.to(weight.dtype), False))
    return merged
