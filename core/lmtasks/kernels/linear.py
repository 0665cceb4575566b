"""Linear layers for a CPU: weights prepacked once for its instructions, in their own type or in int8."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lmtasks.kernels.memory import advise_pageout
from lmtasks.kernels.torch_private import (
    has_bf16_kernels,
    has_int8_instructions,
    has_int8_kernels,
    linear_int8,
    linear_prepacked,
    prepack_int8_weight,
    prepack_weight,
)

FUSED_GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers that architectures give the same inputs, by the names that they have in most of them."""
KEEP_FULL_PRECISION = (
    *("q_proj", "k_proj", "v_proj", "c_attn", "query_key_value"),  # before attention
    *("down_proj", "dense_4h_to_h", "fc2"),  # their inputs are large where two factors are
)
"""Layers that are not quantized to int8, by the names that architectures give them. In SmolLM2 those before attention
are an eighth of the work, and quantizing them does as much harm as quantizing all others; of these the last layer of
each block does two thirds."""
MIN_WEIGHTS = 2**14
"""Weights of the smallest layer that is worth replacing."""
INT8_MAX = 127
EPS = 1e-30
"""Smallest scale, for rows that are all zero."""


def optimize_linear_layers(module: PreTrainedModel, *, int8: bool, texts: Sequence[Sequence[int]] = ()) -> None:
    """Replace the linear layers of a model by layers that compute the same faster.

    Args:
        module: is changed; the weights of its layers are not, which other models may share.
        int8: whether weights and activations are quantized to int8, but for the layers of KEEP_FULL_PRECISION and the
            output embeddings, whose quantization costs 1% of perplexity by itself.
        texts: token ids of calibration texts, for int8: they show which activations are large.
    """
    head = module.get_output_embeddings()
    input_absmax = _input_absmax(module, texts) if int8 and texts else {}
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear | Conv1D)}
    while layers:
        name, layer = next(iter(layers.items()))
        parent, _, last = name.rpartition(".")
        prefix = f"{parent}." if parent else ""
        group = next((names for names in FUSED_GROUPS if last in names), (last,))
        if not all(prefix + member in layers for member in group):
            group = (last,)
        members = [layers.pop(prefix + member) for member in group]
        quantized = int8 and layer is not head and last not in KEEP_FULL_PRECISION
        if not (quantized or can_prepack(layer.weight)) or sum(each.weight.numel() for each in members) < MIN_WEIGHTS:
            continue
        weights = [_weight(each) for each in members]
        weight, bias = _concatenated(weights, [each.bias for each in members])
        fast = Int8Linear(weight, bias, input_absmax.get(name)) if quantized else PrepackedLinear(weight, bias)
        replace_layers(module.get_submodule(parent), group, fast, [len(weight) for weight in weights])
        for weight in weights:
            advise_pageout(weight)


def replace_layers(parent: nn.Module, names: Sequence[str], layer: nn.Module, outputs: Sequence[int]) -> None:
    """Put one layer in the place of several that are given the same inputs.

    Args:
        parent: the module that holds them.
        names: their names in it, in the order in which they are called.
        layer: computes the outputs of all of them.
        outputs: how many outputs each has.
    """
    if len(names) == 1:
        setattr(parent, names[0], layer)
        return
    fused = FusedLinear(layer, outputs)
    for index, name in enumerate(names):
        setattr(parent, name, FusedSlice(fused, index))


@torch.inference_mode()
def _input_absmax(module: PreTrainedModel, texts: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    """Return by layer the largest absolute value of each of its inputs on some texts, shape [inputs]."""
    absmax: dict[str, torch.Tensor] = {}

    def observe(name: str, inputs: torch.Tensor) -> None:
        largest = inputs.detach().float().abs().flatten(0, -2).amax(0)
        absmax[name] = torch.maximum(absmax[name], largest) if name in absmax else largest

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: observe(name, inputs[0]))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | Conv1D)
    ]
    for ids in texts:
        module(input_ids=torch.tensor([list(ids)], device=module.device), use_cache=False)
    for hook in hooks:
        hook.remove()
    return absmax


def _weight(layer: nn.Linear | Conv1D) -> torch.Tensor:
    """Return a layer's weight, shape [outputs, inputs]."""
    return layer.weight.detach().t() if isinstance(layer, Conv1D) else layer.weight.detach()


def _concatenated(
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


class FusedLinear(nn.Module):
    """Layers that are given the same inputs, computed as one."""

    def __init__(self, layer: nn.Module, outputs: Sequence[int]) -> None:
        """Fuse layers.

        Args:
            layer: computes the outputs of all of them.
            outputs: how many outputs each has.
        """
        super().__init__()
        self.layer, self.outputs = layer, list(outputs)
        self._inputs: torch.Tensor | None = None
        self._slices: tuple[torch.Tensor, ...] = ()

    def slice(self, index: int, inputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs of one layer; those of the others are kept until the last of them has been called."""
        if inputs is not self._inputs:
            self._inputs, self._slices = inputs, self.layer(inputs).split(self.outputs, -1)
        outputs = self._slices[index]
        if index == len(self.outputs) - 1:
            self._inputs, self._slices = None, ()
        return outputs


class FusedSlice(nn.Module):
    """One of several layers that are computed together."""

    def __init__(self, fused: FusedLinear, index: int) -> None:
        """Stand for the layer with this index among those of `fused`."""
        super().__init__()
        self.fused, self.index = fused, index

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return outputs, shape [..., outputs], for inputs, shape [..., inputs]."""
        return self.fused.slice(self.index, inputs)


def supports_int8(device: torch.device) -> bool:
    """Return whether int8 layers run on a device: a CPU with int8 instructions, and a torch with oneDNN.

    Without these instructions sums of two products saturate at 16 bits, and are no longer exact.
    """
    return device.type == "cpu" and has_int8_kernels() and has_int8_instructions()


def can_prepack(weight: torch.Tensor) -> bool:
    """Return whether a weight gains from prepacking: bfloat16 does where a CPU computes in it."""
    return weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and has_bf16_kernels()


class PrepackedLinear(nn.Module):
    """A linear layer whose weight is in oneDNN's memory order; otherwise oneDNN would reorder it at every call."""

    ROWS = 64
    """Number of input rows that the order is chosen for."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Prepack a layer.

        Args:
            weight: shape [outputs, inputs].
            bias: shape [outputs].
        """
        super().__init__()
        self.weight = prepack_weight(weight.contiguous(), self.ROWS)
        self.bias = bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return outputs, shape [..., outputs], for inputs, shape [..., inputs]."""
        return linear_prepacked(inputs, self.weight, self.bias)


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, one scale an output, and int8 inputs, one scale a row.

    Rows are quantized as they come, each by its own largest value, so that no row depends on its neighbours. Sums are
    exact; scales are float32. A few inputs are many times as large as the others, and would leave these no bits: they
    are made smaller and their weights larger by the same factor (Xiao et al. 2023, "SmoothQuant", equation 4 with
    alpha = 0.5).
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, input_absmax: torch.Tensor | None = None
    ) -> None:
        """Quantize a layer.

        Args:
            weight: shape [outputs, inputs].
            bias: shape [outputs].
            input_absmax: largest absolute value of each input on calibration texts, shape [inputs]; None: no smoothing.
        """
        super().__init__()
        exact = weight.float().contiguous()  # qlinear_prepack takes any weight for contiguous
        self.smoothing: torch.Tensor | None = None
        if input_absmax is not None:
            factor = (input_absmax.float().clamp_min(EPS) / exact.abs().amax(0).clamp_min(EPS)).sqrt()
            exact, self.smoothing = exact * factor, 1 / factor
        self.scale = (exact.abs().amax(1) / INT8_MAX).clamp_min(EPS)
        quantized = (exact / self.scale[:, None]).round().to(torch.int8)
        self.weight = prepack_int8_weight(quantized)
        self.zero = torch.zeros(len(quantized), dtype=torch.int32)
        self.bias = bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return outputs, shape [..., outputs], for inputs, shape [..., inputs]."""
        exact = inputs.to(torch.float32, copy=True)
        if self.smoothing is not None:
            exact.mul_(self.smoothing)
        absmax = torch.maximum(exact.amax(-1, keepdim=True), exact.amin(-1, keepdim=True).neg_())
        # In the inputs' own precision, so that outputs are multiplied by it without a float32 copy; a little more than
        # needed, so that the largest value stays within 8 bits.
        scale = absmax.mul_(1.01 / INT8_MAX).to(inputs.dtype).clamp_min(EPS)
        # oneDNN's fused kernel wants unsigned inputs, with 128 for zero: that flips the first bit.
        quantized = exact.mul_(scale.float().reciprocal()).round_().to(torch.int8).view(torch.uint8).bitwise_xor_(128)
        outputs = linear_int8(quantized, self.weight, self.scale, self.zero, inputs.dtype)
        outputs.mul_(scale)
        return outputs if self.bias is None else outputs + self.bias
