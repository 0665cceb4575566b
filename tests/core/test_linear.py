"""Linear layers: fused, prepacked for the hardware, or quantized to int8."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

import lmtasks
from lmtasks import Example, Field, RunOptions, Task
from lmtasks.errors import ModelError, UsageError
from lmtasks.kernels.linear import (
    INT8_MAX,
    FusedSlice,
    Int8Linear,
    PrepackedLinear,
    can_prepack,
    optimize_linear_layers,
    replace_layers,
    supports_int8,
)
from lmtasks.kernels.probe import EquivalenceProbe
from lmtasks.testing import save_tiny_model

CPU = torch.device("cpu")
int8 = pytest.mark.skipif(not supports_int8(CPU), reason="this CPU has no int8 instructions")
bf16 = pytest.mark.skipif(
    not can_prepack(torch.zeros(1, dtype=torch.bfloat16)), reason="this CPU does not compute in bfloat16"
)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def small_llama(dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=True,
        mlp_bias=False,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


class PlainLinear(nn.Module):
    """A linear layer as it is."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(inputs, self.weight, self.bias)


@bf16
@pytest.mark.parametrize("rows", [1, 5, 130])
def test_prepacked_linear_computes_the_same(rows):
    weight, bias = drawn(96, 200).bfloat16(), drawn(96, seed=1).bfloat16()
    inputs = drawn(1, rows, 200, seed=2).bfloat16()
    exact = nn.functional.linear(inputs.double(), weight.double(), bias.double())
    assert (PrepackedLinear(weight, bias)(inputs).double() - exact).abs().max() < 0.01 * exact.abs().max()


@int8
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [None, drawn(96, seed=1)])
def test_int8_linear_is_off_by_rounding_alone(dtype, bias):
    weight, inputs = drawn(96, 200).to(dtype), drawn(1, 7, 200, seed=2).to(dtype)
    bias = bias if bias is None else bias.to(dtype)
    outputs = Int8Linear(weight, bias)(inputs)
    assert outputs.dtype == dtype
    exact = nn.functional.linear(inputs.double(), weight.double(), bias if bias is None else bias.double())
    # Each factor is off by half a step at most; by how much that moves a sum of 200 is drawn, six deviations allowed.
    step = 0.5 / INT8_MAX * (inputs.double().abs().amax() * weight.double().norm(dim=1).max() * 2) / 3**0.5
    assert (outputs.double() - exact).abs().max() < 6 * step + 0.01 * exact.abs().max()


@int8
def test_int8_linear_with_smoothing_keeps_precision_beside_large_inputs():
    weight, inputs = drawn(96, 200), drawn(1, 50, 200, seed=2)
    inputs[..., ::40] *= 100
    exact = inputs @ weight.t()
    plain, smooth = Int8Linear(weight, None), Int8Linear(weight, None, inputs.abs().amax((0, 1)))
    assert (smooth(inputs) - exact).norm() < 0.5 * (plain(inputs) - exact).norm()


@int8
def test_optimize_linear_layers_smooths_by_calibration_texts():
    exact, plain, calibrated = small_llama(), small_llama(), small_llama()
    for model in (exact, plain, calibrated):
        model.model.layers[1].post_attention_layernorm.weight.data[7] = 50
    optimize_linear_layers(plain, int8=True)
    optimize_linear_layers(calibrated, int8=True, texts=[list(range(40)), list(range(90, 130))])
    ids = torch.arange(200, 260)[None]
    assert (calibrated(ids).logits - exact(ids).logits).norm() < 0.7 * (plain(ids).logits - exact(ids).logits).norm()


@int8
@given(st.integers(0, 6), st.floats(0, 1e4))
def test_int8_linear_computes_each_row_by_itself(row, factor):
    layer, inputs = Int8Linear(drawn(32, 64), None), drawn(7, 64, seed=2)
    inputs[row] *= factor
    together = layer(inputs[None])[0]
    assert torch.equal(together[row], layer(inputs[None, row : row + 1])[0, 0])
    assert torch.isfinite(together).all()


@pytest.mark.parametrize("bias", [True, False])
def test_fused_linear_gives_each_layer_its_outputs_in_float32(bias):
    parent, inputs = nn.Module(), drawn(1, 9, 48)
    layers = {name: nn.Linear(48, outputs, bias=bias) for name, outputs in (("q", 16), ("k", 8), ("v", 8))}
    whole = nn.Linear(48, 32, bias=bias)
    with torch.no_grad():
        whole.weight.copy_(torch.cat([layer.weight for layer in layers.values()]))
        if bias:
            whole.bias.copy_(torch.cat([layer.bias for layer in layers.values()]))
    calls: list[int] = []
    whole.register_forward_hook(lambda *_: calls.append(1))
    replace_layers(parent, tuple(layers), whole, [16, 8, 8])
    for _ in range(2):  # with the same inputs again
        for name, layer in layers.items():
            assert torch.allclose(getattr(parent, name)(inputs), layer(inputs), atol=1e-6)
    assert len(calls) == 2


def test_fused_model_computes_the_same_in_float32(monkeypatch):
    monkeypatch.setattr("lmtasks.kernels.linear.can_prepack", lambda weight: True)
    monkeypatch.setattr("lmtasks.kernels.linear.PrepackedLinear", PlainLinear)
    model, optimized = small_llama(), small_llama()
    optimize_linear_layers(optimized, int8=False)
    attention, mlp = optimized.model.layers[1].self_attn, optimized.model.layers[1].mlp
    assert attention.q_proj.fused is attention.k_proj.fused is attention.v_proj.fused
    assert mlp.gate_proj.fused is mlp.up_proj.fused
    assert isinstance(attention.o_proj, PlainLinear) and isinstance(optimized.lm_head, PlainLinear)
    ids = torch.arange(20)[None]
    assert torch.allclose(model(ids).logits, optimized(ids).logits, atol=1e-5)


@int8
def test_int8_layers_with_the_same_inputs_are_fused():
    model, optimized = small_llama(), small_llama()
    optimize_linear_layers(optimized, int8=True)
    mlp, attention = optimized.model.layers[0].mlp, optimized.model.layers[0].self_attn
    assert isinstance(mlp.gate_proj, FusedSlice) and mlp.gate_proj.fused is mlp.up_proj.fused
    assert isinstance(attention.o_proj, Int8Linear)
    for exact in (optimized.lm_head, attention.q_proj):  # their quantization is not worth what it costs
        assert isinstance(exact, nn.Linear)
    inputs = drawn(1, 9, 128)
    for name in ("gate_proj", "up_proj"):
        alone = getattr(model.model.layers[0].mlp, name)
        assert torch.equal(getattr(mlp, name)(inputs), Int8Linear(alone.weight.detach(), None)(inputs))
    ids = torch.arange(20)[None]
    exact, quantized = model(ids).logits, optimized(ids).logits
    assert 0 < (exact - quantized).abs().max() < 0.05 * exact.abs().max()


@bf16
def test_prepacked_model_computes_the_same():
    model, optimized = small_llama(torch.bfloat16), small_llama(torch.bfloat16)
    optimize_linear_layers(optimized, int8=False)
    assert isinstance(optimized.lm_head, PrepackedLinear)
    ids = torch.arange(20)[None]
    assert (model(ids).logits - optimized(ids).logits).abs().max() < 0.02 * model(ids).logits.abs().max()


@int8
def test_optimize_linear_layers_quantizes_conv1d():
    module = nn.Module()
    module.get_output_embeddings = lambda: None
    module.c_fc = before = Conv1D(192, 128)
    optimize_linear_layers(module, int8=True)
    inputs = drawn(1, 4, 128)
    assert isinstance(module.c_fc, Int8Linear)
    assert (module.c_fc(inputs) - before(inputs)).abs().max() < 0.03


# Runs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny_model(tmp_path / "base")
    tokenizer = lmtasks.load_model(tmp_path / "base", RunOptions(device="cpu", dtype="float32")).tokenizer
    model = small_llama()
    model.resize_token_embeddings(len(tokenizer))
    model.config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@int8
def test_run_with_int8_records_the_quantization_loss(tmp_path, folder):
    examples = [Example(id=str(n), inputs={"text": f"ferry {n} " * 9}, references=("nine",)) for n in range(5)]
    task = Task(
        name="echo",
        version=1,
        summary="Echo.",
        fields={"text": Field()},
        prompts={"plain": "Say $text"},
        datasets={"demo": lambda split: iter(examples if split == "test" else [])},
        metrics=("exact_match",),
    )
    settings = {"device": "cpu", "dtype": "float32", "max_new_tokens": 3, "output_dir": tmp_path / "runs"}
    run = lmtasks.run(task, model=folder, quantize="int8", **settings)
    assert run.record.model.quantize == "int8"
    loss = run.record.quantization_loss
    assert loss is not None
    assert loss.tokens > 50
    assert 0 < abs(loss.quantized_ppl / loss.baseline_ppl - 1) < 0.05
    exact = lmtasks.run(task, model=folder, **settings)
    assert exact.record.quantization_loss is None
    assert exact.record.key != run.record.key


@int8
def test_quantize_is_refused_in_one_line_where_it_does_not_work(folder, monkeypatch):
    with pytest.raises(UsageError, match="quantize must be one of none, int8, not 'int4'"):
        RunOptions(quantize="int4")
    with pytest.raises(ModelError, match="quantize='int8' works with dtype bfloat16 or float32, not with float16"):
        lmtasks.load_model(folder, RunOptions(device="cpu", dtype="float16", quantize="int8"))
    with pytest.raises(ModelError, match="quantize='int8': LlamaForCausalLM runs on the backend hf-generate"):
        lmtasks.load_model(folder, RunOptions(device="cpu", dtype="float32", quantize="int8", backend="hf-generate"))
    monkeypatch.setattr(EquivalenceProbe, "accepts", lambda *_: False)
    with pytest.raises(ModelError, match="quantize='int8': LlamaForCausalLM runs on the backend hf-generate"):
        lmtasks.load_model(folder, RunOptions(device="cpu", dtype="float32", quantize="int8"))


def test_quantize_is_refused_on_a_cpu_without_int8_instructions(folder, monkeypatch):
    monkeypatch.setattr("torch.cpu._is_vnni_supported", lambda: False)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    with pytest.raises(ModelError, match="quantize='int8' needs a CPU with int8 instructions .*; leave it out"):
        lmtasks.load_model(folder, RunOptions(device="cpu", dtype="float32", quantize="int8"))
