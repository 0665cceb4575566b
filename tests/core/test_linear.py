"""Linear layers laid out for the hardware or rounded to 8 bits."""

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
from lmtasks.backends.huggingface import TransformersModel
from lmtasks.errors import ModelError, UsageError
from lmtasks.kernels.linear import (
    LEVELS,
    Int8Linear,
    PackedLinear,
    Part,
    can_pack,
    optimize_linear_layers,
    supports_int8,
)
from lmtasks.testing import save_tiny_model

CPU = torch.device("cpu")
rounds = pytest.mark.skipif(not supports_int8(CPU), reason="this torch does not multiply in 8 bits")
packs = pytest.mark.skipif(
    not can_pack(torch.zeros(1, dtype=torch.bfloat16)), reason="this CPU does not compute in bfloat16"
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


@packs
@pytest.mark.parametrize("rows", [1, 5, 130])
def test_a_packed_layer_computes_the_same(rows):
    weight, bias = drawn(96, 200).bfloat16(), drawn(96, seed=1).bfloat16()
    inputs = drawn(1, rows, 200, seed=2).bfloat16()
    exact = nn.functional.linear(inputs.double(), weight.double(), bias.double())
    assert (PackedLinear(weight, bias)(inputs).double() - exact).abs().max() < 0.01 * exact.abs().max()


@rounds
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [None, drawn(96, seed=1)])
def test_a_rounded_layer_is_off_by_rounding_alone(dtype, bias):
    weight, inputs = drawn(96, 200).to(dtype), drawn(1, 7, 200, seed=2).to(dtype)
    bias = bias if bias is None else bias.to(dtype)
    found = Int8Linear(weight, bias)(inputs)
    assert found.dtype == dtype
    exact = nn.functional.linear(inputs.double(), weight.double(), bias if bias is None else bias.double())
    # Each factor is off by half a step at most; by how much that moves a sum of 200 is drawn, six deviations allowed.
    step = 0.5 / LEVELS * (inputs.double().abs().amax() * weight.double().norm(dim=1).max() * 2) / 3**0.5
    assert (found.double() - exact).abs().max() < 6 * step + 0.01 * exact.abs().max()


@rounds
def test_large_inputs_leave_the_others_their_bits():
    weight, inputs = drawn(96, 200), drawn(1, 50, 200, seed=2)
    inputs[..., ::40] *= 100
    exact = inputs @ weight.t()
    plain, smooth = Int8Linear(weight, None), Int8Linear(weight, None, inputs.abs().amax((0, 1)))
    assert (smooth(inputs) - exact).norm() < 0.5 * (plain(inputs) - exact).norm()


@rounds
def test_a_model_is_rounded_by_what_it_does_on_texts():
    exact, plain, seen = small_llama(), small_llama(), small_llama()
    for model in (exact, plain, seen):
        model.model.layers[1].post_attention_layernorm.weight.data[7] = 50
    optimize_linear_layers(plain, int8=True)
    optimize_linear_layers(seen, int8=True, texts=[list(range(40)), list(range(90, 130))])
    ids = torch.arange(200, 260)[None]
    assert (seen(ids).logits - exact(ids).logits).norm() < 0.7 * (plain(ids).logits - exact(ids).logits).norm()


@rounds
@given(st.integers(0, 6), st.floats(0, 1e4))
def test_a_rounded_row_depends_on_no_other(row, factor):
    layer, inputs = Int8Linear(drawn(32, 64), None), drawn(7, 64, seed=2)
    inputs[row] *= factor
    together = layer(inputs[None])[0]
    assert torch.equal(together[row], layer(inputs[None, row : row + 1])[0, 0])
    assert torch.isfinite(together).all()


@rounds
def test_layers_with_the_same_inputs_are_computed_as_one_and_each_gets_its_part():
    model, laid = small_llama(), small_llama()
    optimize_linear_layers(laid, int8=True)
    mlp, attention = laid.model.layers[0].mlp, laid.model.layers[0].self_attn
    assert isinstance(mlp.gate_proj, Part) and mlp.gate_proj.together is mlp.up_proj.together
    assert isinstance(attention.o_proj, Int8Linear)
    for exact in (laid.lm_head, attention.q_proj):  # whose rounding is not worth what it costs
        assert isinstance(exact, nn.Linear)
    inputs = drawn(1, 9, 128)
    for name in ("gate_proj", "up_proj"):
        alone = getattr(model.model.layers[0].mlp, name)
        assert torch.equal(getattr(mlp, name)(inputs), Int8Linear(alone.weight.detach(), None)(inputs))
    ids = torch.arange(20)[None]
    exact, rounded = model(ids).logits, laid(ids).logits
    assert 0 < (exact - rounded).abs().max() < 0.05 * exact.abs().max()


@packs
def test_a_packed_model_says_the_same():
    model, laid = small_llama(torch.bfloat16), small_llama(torch.bfloat16)
    optimize_linear_layers(laid, int8=False)
    assert isinstance(laid.lm_head, PackedLinear)
    ids = torch.arange(20)[None]
    assert (model(ids).logits - laid(ids).logits).abs().max() < 0.02 * model(ids).logits.abs().max()


@rounds
def test_layers_that_are_stored_the_other_way_round_are_rounded_too():
    module = nn.Module()
    module.get_output_embeddings = lambda: None
    module.c_fc = before = Conv1D(192, 128)
    optimize_linear_layers(module, int8=True)
    inputs = drawn(1, 4, 128)
    assert isinstance(module.c_fc, Int8Linear)
    assert (module.c_fc(inputs) - before(inputs)).abs().max() < 0.03


# Asked for


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


@rounds
def test_a_rounded_run_says_so_and_what_it_costs(tmp_path, folder):
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
    assert run.record["model"]["quantize"] == "int8"
    rounding = run.record["rounding"]
    assert rounding["tokens"] > 50
    assert 0 < abs(rounding["rounded"] / rounding["exact"] - 1) < 0.05
    assert "linear layers rounded to int8 (perplexity " in (run.path / "report.md").read_text()
    exact = lmtasks.run(task, model=folder, **settings)
    assert exact.record["rounding"] is None
    assert exact.record["key"] != run.record["key"]


@rounds
def test_what_cannot_be_rounded_is_refused_in_one_line(folder, monkeypatch):
    with pytest.raises(UsageError, match="quantize must be one of none, int8, not 'int4'"):
        RunOptions(quantize="int4")
    with pytest.raises(ModelError, match="quantize='int8' goes with dtype bfloat16 or float32, not with float16"):
        lmtasks.load_model(folder, RunOptions(device="cpu", dtype="float16", quantize="int8"))
    monkeypatch.setattr(TransformersModel, "engine", "generate")
    with pytest.raises(ModelError, match=r"quantize='int8': LlamaForCausalLM is run by transformers' generate"):
        lmtasks.load_model(folder, RunOptions(device="cpu", dtype="float32", quantize="int8"))


def test_a_cpu_that_cannot_multiply_in_8_bits_says_so(folder, monkeypatch):
    monkeypatch.setattr("torch.cpu._is_vnni_supported", lambda: False)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    with pytest.raises(ModelError, match=r"quantize='int8' needs a CPU with int8 instructions .*; leave it out"):
        lmtasks.load_model(folder, RunOptions(device="cpu", dtype="float32", quantize="int8"))
