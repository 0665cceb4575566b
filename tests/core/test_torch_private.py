"""Private interfaces of torch and transformers: still there, with the same signature."""

from __future__ import annotations

import inspect

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.configuration_utils import PreTrainedConfig

from lmtasks.kernels import torch_private
from lmtasks.kernels.linear import can_prepack, supports_int8

REMEDY = (
    "{} is gone or has changed: adapt its function in lmtasks/kernels/torch_private.py to what replaces it, and the"
    " versions named there; {}"
)


def schema(operator: object) -> str:
    return str(operator._schemas[""])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (torch._C, "_has_mkldnn"),
        (torch.cpu, "_is_vnni_supported"),
        (torch.cpu, "_is_amx_tile_supported"),
        (torch.ops.mkldnn, "_is_mkldnn_bf16_supported"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_cpu_features_are_still_asked_of_torch(module, name):
    way_out = "until then `has_...` may return False, which costs speed and no text"
    assert hasattr(module, name), REMEDY.format(name, way_out)


@pytest.mark.skipif(not torch_private.has_onednn(), reason="a torch without oneDNN")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("_reorder_linear_weight", "(Tensor self, int? batch_size=None)"),
        ("_linear_pointwise", "(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm)"),
    ],
)
def test_mkldnn_linear_has_the_same_signature(name, arguments):
    way_out = "until then `has_bf16_kernels` may return False, so that layers stay as they are"
    assert arguments in schema(getattr(torch.ops.mkldnn, name)), REMEDY.format(name, way_out)


@pytest.mark.skipif(not torch_private.has_onednn(), reason="a torch without oneDNN")
def test_onednn_qlinear_has_the_same_signature():
    way_out = "until then `has_int8_kernels` may return False, so that quantize is refused"
    prepack, pointwise = (schema(getattr(torch.ops.onednn, name)) for name in ("qlinear_prepack", "qlinear_pointwise"))
    assert "(Tensor weight, int[]? x_shape)" in prepack, REMEDY.format("qlinear_prepack", way_out)
    start = "(Tensor qx, float x_scale, int x_zero_point, Tensor qw, Tensor w_scale, Tensor w_zero_point, Tensor? bias"
    assert start in pointwise, REMEDY.format("qlinear_pointwise", way_out)


@pytest.mark.skipif(
    not can_prepack(torch.zeros(1, dtype=torch.bfloat16)), reason="this CPU does not compute in bfloat16"
)
def test_linear_prepacked_computes_a_linear_layer():
    weight, inputs = torch.randn(96, 64).bfloat16(), torch.randn(3, 64).bfloat16()
    outputs = torch_private.linear_prepacked(inputs, torch_private.prepack_weight(weight, 64), None)
    assert torch.allclose(outputs.float(), inputs.float() @ weight.float().t(), atol=0.5)


@pytest.mark.skipif(not supports_int8(torch.device("cpu")), reason="this CPU has no int8 instructions")
def test_linear_int8_computes_a_scaled_linear_layer():
    weight = torch.randint(-127, 128, (96, 64), dtype=torch.int8)
    inputs = torch.randint(0, 256, (3, 64), dtype=torch.uint8)
    scales, zeros = torch.rand(96), torch.zeros(96, dtype=torch.int32)
    outputs = torch_private.linear_int8(inputs, torch_private.prepack_int8_weight(weight), scales, zeros, torch.float32)
    assert torch.allclose(outputs, (inputs.float() - 128) @ weight.float().t() * scales, rtol=1e-4, atol=1e-2)


def test_attention_interface_of_transformers_is_still_there():
    way_out = "until then `supports_attention_functions` may return False, so that hf-generate runs every model"
    assert hasattr(PreTrainedModel, "_supports_attention_backend"), REMEDY.format(
        "_supports_attention_backend", way_out
    )
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "intermediate_size": 32}
    llama = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes, **heads))
    mamba = AutoModelForCausalLM.from_config(AutoConfig.for_model("mamba", **sizes, state_size=4))
    assert torch_private.supports_attention_functions(llama), REMEDY.format("_supports_attention_backend", way_out)
    assert not torch_private.supports_attention_functions(mamba), REMEDY.format("_is_stateful", way_out)
    assert inspect.signature(PreTrainedModel.set_attn_implementation).parameters
    way_out = "packed_attention restores it after training"
    assert hasattr(PreTrainedConfig, "_attn_implementation"), REMEDY.format("_attn_implementation", way_out)
    llama.set_attn_implementation("eager")
    assert torch_private.attention_implementation(llama.config) == "eager", REMEDY.format(
        "_attn_implementation", way_out
    )
