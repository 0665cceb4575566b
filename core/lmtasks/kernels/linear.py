"""Linear layers for a CPU: weights laid out once for its instructions, in their own type or in 8 bits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lmtasks.kernels.memory import advise_pageout

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers that architectures give the same inputs, by the names that they have in most of them."""
EXACT = (
    *("q_proj", "k_proj", "v_proj", "c_attn", "query_key_value"),  # before attention
    *("down_proj", "dense_4h_to_h", "fc2"),  # behind what is large where two factors are
)
"""Layers that are not rounded to 8 bits, by the names that architectures give them. In SmolLM2 those before attention
are an eighth of the work, and their rounding does as much harm as that of all others; of these the last layer of each
block does two thirds."""
LEAST_WEIGHTS = 2**14
"""Of a layer that is worth being laid out."""
LEVELS = 127
"""Of 8 bits, on each side of zero."""
TINY = 1e-30
"""The least scale: of rows that are all zero."""


def optimize_linear_layers(module: PreTrainedModel, *, int8: bool, texts: Sequence[Sequence[int]] = ()) -> None:
    """Replace the linear layers within a model by such as compute the same faster.

    Args:
        module: is changed; the weights of its layers are not, which others may share.
        int8: whether weights and activations are rounded to 8 bits, but for the layers of EXACT and the output
            embeddings, whose rounding costs 1% of perplexity by itself.
        texts: on which it is seen which activations are large, for int8; tokens of each.
    """
    head = module.get_output_embeddings()
    largest = _largest_inputs(module, texts) if int8 and texts else {}
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear | Conv1D)}
    while layers:
        name, layer = next(iter(layers.items()))
        parent, _, own = name.rpartition(".")
        prefix = f"{parent}." if parent else ""
        siblings = next((names for names in SIBLINGS if own in names), (own,))
        if not all(prefix + sibling in layers for sibling in siblings):
            siblings = (own,)
        found = [layers.pop(prefix + sibling) for sibling in siblings]
        rounds = int8 and layer is not head and own not in EXACT
        if not (rounds or can_pack(layer.weight)) or sum(each.weight.numel() for each in found) < LEAST_WEIGHTS:
            continue
        weights = [_weight(each) for each in found]
        weight, bias = _joined(weights, [each.bias for each in found])
        fast = Int8Linear(weight, bias, largest.get(name)) if rounds else PackedLinear(weight, bias)
        together = Together(fast, [len(weight) for weight in weights])
        for number, sibling in enumerate(siblings):
            setattr(module.get_submodule(parent), sibling, Part(together, number) if len(siblings) > 1 else fast)
        for weight in weights:
            advise_pageout(weight)


@torch.inference_mode()
def _largest_inputs(module: PreTrainedModel, texts: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    """Return by layer the largest absolute value of each of its inputs on some texts, shape [inputs]."""
    found: dict[str, torch.Tensor] = {}

    def look(name: str, inputs: torch.Tensor) -> None:
        here = inputs.detach().float().abs().flatten(0, -2).amax(0)
        found[name] = torch.maximum(found[name], here) if name in found else here

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: look(name, inputs[0]))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | Conv1D)
    ]
    for ids in texts:
        module(input_ids=torch.tensor([list(ids)], device=module.device), use_cache=False)
    for hook in hooks:
        hook.remove()
    return found


def _weight(layer: nn.Linear | Conv1D) -> torch.Tensor:
    """Return a layer's weight, shape [outputs, inputs]."""
    return layer.weight.detach().t() if isinstance(layer, Conv1D) else layer.weight.detach()


def _joined(
    weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor | None]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the weight and bias of one layer with the outputs of all of these."""
    if len(weights) == 1:
        return weights[0], None if biases[0] is None else biases[0].detach()
    if all(bias is None for bias in biases):
        return torch.cat(list(weights)), None
    zeros = [weight.new_zeros(len(weight)) for weight in weights]
    filled = [zero if bias is None else bias.detach() for zero, bias in zip(zeros, biases, strict=True)]
    return torch.cat(list(weights)), torch.cat(filled)


class Together(nn.Module):
    """Layers that are given the same inputs, computed as one."""

    def __init__(self, layer: nn.Module, outputs: Sequence[int]) -> None:
        """Take a layer, and how many of its outputs belong to each part."""
        super().__init__()
        self.layer, self.outputs = layer, list(outputs)
        self._inputs: torch.Tensor | None = None
        self._found: tuple[torch.Tensor, ...] = ()

    def part(self, number: int, inputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs of a part; its siblings' are kept for them until the last of them has asked."""
        if inputs is not self._inputs:
            self._inputs, self._found = inputs, self.layer(inputs).split(self.outputs, -1)
        found = self._found[number]
        if number == len(self.outputs) - 1:
            self._inputs, self._found = None, ()
        return found


class Part(nn.Module):
    """One of several layers that are computed together."""

    def __init__(self, together: Together, number: int) -> None:
        """Take the layers, and which of them this is."""
        super().__init__()
        self.together, self.number = together, number

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return outputs, shape [..., outputs], of inputs, shape [..., inputs]."""
        return self.together.part(self.number, inputs)


def supports_int8(device: torch.device) -> bool:
    """Tell whether a device multiplies in 8 bits: a CPU with instructions for it, and a torch with oneDNN.

    Without these instructions sums of two products are cut off at 16 bits, and are no longer exact.
    """
    there = torch._C._has_mkldnn and hasattr(torch.ops.onednn, "qlinear_prepack")
    return device.type == "cpu" and there and (torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported())


def can_pack(weight: torch.Tensor) -> bool:
    """Tell whether a weight gains from another order: bfloat16 does where a CPU computes in it."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch._C._has_mkldnn
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


class PackedLinear(nn.Module):
    """Weights in the order in which oneDNN multiplies them; else it would reorder them at every call."""

    ROWS = 64
    """That the order is chosen for."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Take a weight, shape [outputs, inputs], and a bias, shape [outputs]."""
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), self.ROWS)
        self.bias = bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return outputs, shape [..., outputs], of inputs, shape [..., inputs]."""
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self.packed, self.bias, "none", [], "")
        return found


class Int8Linear(nn.Module):
    """Weights in 8 bits with a scale for each output, and inputs in 8 bits with a scale for each row.

    Rows are rounded as they come, each by its own largest value, so that no row depends on its neighbours. Sums are
    exact; scales are float32. A few inputs are many times as large as the others, and would leave these no bits: they
    are made smaller and their weights larger by the same factor (Xiao et al. 2023, "SmoothQuant", equation 4 with a
    half for alpha).
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, largest: torch.Tensor | None = None) -> None:
        """Take a layer.

        Args:
            weight: shape [outputs, inputs].
            bias: shape [outputs].
            largest: absolute value of each input on some texts, shape [inputs]; None: all are alike.
        """
        super().__init__()
        exact = weight.float().contiguous()  # else it would be packed as if it were
        self.smaller: torch.Tensor | None = None
        if largest is not None:
            factor = (largest.float().clamp_min(TINY) / exact.abs().amax(0).clamp_min(TINY)).sqrt()
            exact, self.smaller = exact * factor, 1 / factor
        self.scale = (exact.abs().amax(1) / LEVELS).clamp_min(TINY)
        rounded = (exact / self.scale[:, None]).round().to(torch.int8)
        self.packed = torch.ops.onednn.qlinear_prepack(rounded, None)
        self.zero = torch.zeros(len(rounded), dtype=torch.int32)
        self.bias = bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return outputs, shape [..., outputs], of inputs, shape [..., inputs]."""
        exact = inputs.to(torch.float32, copy=True)
        if self.smaller is not None:
            exact.mul_(self.smaller)
        largest = torch.maximum(exact.amax(-1, keepdim=True), exact.amin(-1, keepdim=True).neg_())
        # Of a precision that outputs can be multiplied by without a copy of them in float32; a little more than needed,
        # so that the largest value stays within 8 bits.
        scale = largest.mul_(1.01 / LEVELS).to(inputs.dtype).clamp_min(TINY)
        # oneDNN's fused kernel wants unsigned inputs, with 128 for zero: that is another first bit.
        rounded = exact.mul_(scale.float().reciprocal()).round_().to(torch.int8).view(torch.uint8).bitwise_xor_(128)
        found: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, 128, self.packed, self.scale, self.zero, None, 1.0, 0, inputs.dtype, "none", [], ""
        )
        found.mul_(scale)
        return found if self.bias is None else found + self.bias
