"""Private interfaces of torch and transformers that kernels, backends and packing use, each in one function.

tests/core/test_torch_private.py checks that each is still there and says what to do where one is gone. Tested with
torch 2.9 to 2.13 and transformers 5.17.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel


def has_onednn() -> bool:
    """Return whether this torch was built with oneDNN (once called MKL-DNN)."""
    return bool(torch._C._has_mkldnn)


def has_bf16_kernels() -> bool:
    """Return whether oneDNN computes bfloat16 products on this CPU."""
    return has_onednn() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def computes_in_bf16() -> bool:
    """Return whether this CPU has instructions for bfloat16 products (AVX512-BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def has_int8_instructions() -> bool:
    """Return whether this CPU has instructions for int8 products with 32-bit sums (AVX512-VNNI or AMX)."""
    return bool(torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported())


def has_int8_kernels() -> bool:
    """Return whether this torch has oneDNN's int8 linear layers."""
    return has_onednn() and hasattr(torch.ops.onednn, "qlinear_prepack")


def prepack_weight(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """Return a bfloat16 weight in the memory order in which oneDNN multiplies it.

    Args:
        weight: shape [outputs, inputs], contiguous.
        rows: number of input rows that the order is chosen for; others work too.
    """
    prepacked: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return prepacked


def linear_prepacked(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return a linear layer's outputs, with a weight from `prepack_weight`."""
    outputs: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return outputs


def prepack_int8_weight(weight: torch.Tensor) -> torch.Tensor:
    """Return an int8 weight, shape [outputs, inputs] and contiguous, in oneDNN's memory order."""
    prepacked: torch.Tensor = torch.ops.onednn.qlinear_prepack(weight, None)
    return prepacked


def linear_int8(
    inputs: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Return a linear layer's outputs without bias, scaled by output.

    Args:
        inputs: uint8, 128 stands for zero.
        weight: from `prepack_int8_weight`.
        scales: float32, shape [outputs].
        zeros: int32 zeros, shape [outputs].
        dtype: data type of the outputs.
    """
    outputs: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
        inputs, 1.0, 128, weight, scales, zeros, None, 1.0, 0, dtype, "none", [], ""
    )
    return outputs


def supports_attention_functions(module: PreTrainedModel) -> bool:
    """Return whether an architecture calls transformers' attention interface and keeps no state between tokens."""
    return not getattr(module, "_is_stateful", False) and bool(module._supports_attention_backend)


def attention_implementation(config: object) -> str | None:
    """Return the name of the attention function that a model's config names; None: transformers' default."""
    name: str | None = getattr(config, "_attn_implementation", None)
    return name
