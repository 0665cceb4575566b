"""Models and adapters whose logits or weights are NaN or infinite."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import lmtasks
from lmtasks import Example, Generate, RunOptions, Task
from lmtasks.backends import Continuation, LanguageModel, Request
from lmtasks.errors import AdapterError, ModelError
from lmtasks.models.adapter_files import find_adapter
from lmtasks.task import SamplingParams
from lmtasks.testing import save_tiny_model

ON_CPU = RunOptions(device="cpu", dtype="float32")
GREEDY = SamplingParams(max_new_tokens=4)
SAMPLING = {
    "temperature": SamplingParams(max_new_tokens=4, temperature=0.7),
    "top_k": SamplingParams(max_new_tokens=4, temperature=0.7, top_k=5),
    "top_p": SamplingParams(max_new_tokens=4, temperature=0.7, top_p=0.8),
    "repetition penalty": SamplingParams(max_new_tokens=4, temperature=0.7, repetition_penalty=1.3),
}
WAYS = {"greedy": GREEDY, "greedy with a penalty": SamplingParams(max_new_tokens=4, repetition_penalty=1.3), **SAMPLING}
TASK = Task(
    name="echo",
    version=1,
    summary="Echo.",
    fields=("text",),
    prompts={"plain": "Say $text"},
    datasets={"demo": lambda split: iter([Example(id="a", inputs={"text": "nine"}, references=("nine",))])},
    metrics=("exact_match",),
    output=Generate(max_new_tokens=4),
)


def spoil(folder: Path, change: Callable[[torch.Tensor], torch.Tensor], name: str = "") -> Path:
    """Change the weights of a model that have a part of a name."""
    file = folder / "model.safetensors"
    weights = {key: change(weight) if name in key else weight for key, weight in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def make(folder: Path, change: Callable[[torch.Tensor], torch.Tensor], name: str = "", **options) -> LanguageModel:
    save_tiny_model(folder)
    return lmtasks.load_model(spoil(folder, change, name), replace(ON_CPU, **options))


def nan(weight: torch.Tensor) -> torch.Tensor:
    return weight * math.nan


def infinite(weight: torch.Tensor) -> torch.Tensor:
    return weight * math.inf


def huge(weight: torch.Tensor) -> torch.Tensor:
    return torch.full_like(weight, 3e38)


def row_of(token: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Spoil the embedding of a single token."""

    def change(weight: torch.Tensor) -> torch.Tensor:
        weight = weight.clone()
        weight[token] = math.nan
        return weight

    return change


def answer(model: LanguageModel, generation: SamplingParams = GREEDY, adapter: str | None = None, text: str = "ferry"):
    ids = tuple(model.tokenizer.encode(text, add_special_tokens=False))
    return list(model.generate([Request("a", ids, generation, adapter)], seed=0))


def refused(model: LanguageModel, call: Callable[[], object], *parts: str) -> None:
    with pytest.raises(ModelError) as error:
        call()
    for part in (model.info.name, "float32", "NaN or infinite", *parts):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("generation", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    ("change", "name"), [(nan, "layers.1"), (infinite, "lm_head"), (huge, "lm_head")], ids=["NaN", "infinite", "huge"]
)
def test_logits_that_are_not_finite_are_refused(tmp_path, change, name, generation):
    model = make(tmp_path / "model", change, name)
    refused(model, lambda: answer(model, generation))


@pytest.mark.parametrize("generation", WAYS.values(), ids=WAYS)
def test_native_backend_refuses_a_single_bad_token(tmp_path, tiny_folder, generation):
    token = lmtasks.load_model(tiny_folder, ON_CPU).tokenizer.encode(" nine")[-1]
    model = make(tmp_path / "model", row_of(token), "embed_tokens")
    # Prompts without that token are completed.
    assert answer(model, generation)
    refused(model, lambda: answer(model, generation, text="ferry at nine"))


@pytest.mark.parametrize("generation", WAYS.values(), ids=WAYS)
def test_hf_generate_backend_refuses_a_single_bad_token(tmp_path, tiny_folder, generation):
    token = lmtasks.load_model(tiny_folder, ON_CPU).tokenizer.encode(" nine")[-1]
    model = make(tmp_path / "model", row_of(token), "embed_tokens", backend="hf-generate")
    assert model.backend == "hf-generate"
    assert answer(model, generation)
    refused(model, lambda: answer(model, generation, text="ferry at nine"))


@pytest.mark.parametrize("backend", ["native", "hf-generate"])
def test_loglikelihoods_that_are_not_finite_are_refused(tmp_path, tiny_folder, backend):
    token = lmtasks.load_model(tiny_folder, ON_CPU).tokenizer.encode(" nine")[-1]
    model = make(tmp_path / "model", row_of(token), "embed_tokens", backend=backend)
    assert model.backend == backend
    refused(model, lambda: list(model.loglikelihood([Continuation([5, token], [6, 7])])))


def test_run_and_ask_fail_where_logits_are_not_finite(tmp_path):
    model = make(tmp_path / "model", nan, "layers.1")
    refused(model, lambda: lmtasks.run(TASK, ON_CPU, model=model, output_dir=tmp_path / "runs"))
    refused(model, lambda: lmtasks.ask(TASK, "nine", ON_CPU, model=model))


def test_run_fails_after_the_first_batch_that_is_not_finite(tmp_path, tiny_folder):
    token = lmtasks.load_model(tiny_folder, ON_CPU).tokenizer.encode(" nine")[-1]
    model = make(tmp_path / "model", row_of(token), "embed_tokens")
    refused(model, lambda: lmtasks.run(TASK, ON_CPU, model=model, output_dir=tmp_path / "runs"))
    [folder] = (tmp_path / "runs").iterdir()
    assert lmtasks.Run(folder).status == "failed"
    assert "NaN" in lmtasks.Run(folder).record.error


def test_masked_tokens_do_no_harm(tmp_path):
    """Models mask tokens by logits of -inf."""
    save_tiny_model(tmp_path / "model", "gpt_neox")
    model = lmtasks.load_model(tmp_path / "model", ON_CPU)
    module = model._loaded.module
    head = torch.nn.Linear(48, module.get_output_embeddings().weight.shape[0], bias=True)
    head.weight.data = module.get_output_embeddings().weight.data
    head.bias.data.zero_()
    head.bias.data[7:] = -math.inf
    module.set_output_embeddings(head.eval())
    assert model.backend == "native"
    for generation in WAYS.values():
        [[(_, completion)]] = answer(model, generation)
        assert all(token < 7 for token in model.tokenizer.encode(completion.text)) or not completion.text
    [[(_, logprob)]] = model.loglikelihood([Continuation([5], [3])])
    assert math.isfinite(logprob)


# Adapters


@pytest.fixture
def adapter(tmp_path: Path, tiny_folder: Path) -> Path:
    config = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_folder), config).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_attach_blames_a_base_that_is_not_finite_and_not_the_adapter(tmp_path, adapter):
    model = make(tmp_path / "model", nan, "layers.1")
    refused(model, lambda: model.attach(find_adapter(adapter)))


def test_merge_refuses_a_base_with_bad_weights(tmp_path, adapter):
    save_tiny_model(tmp_path / "model")
    spoil(tmp_path / "model", nan, "layers.1.mlp.up_proj")
    with pytest.raises(ModelError, match=r"its weight model\.layers\.1\.mlp\.up_proj\.weight is NaN or infinite"):
        lmtasks.api.merge_adapter(adapter, tmp_path / "merged", model=tmp_path / "model")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_merge_refuses_an_adapter_with_bad_weights(tmp_path, tiny_folder, adapter, dtype):
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    value = math.nan if dtype == "float32" else 1e3  # float16 overflows, where float32 does not
    save_file({name: torch.full_like(weight, value) for name, weight in weights.items()}, file)
    with pytest.raises(AdapterError, match=f"q_proj.* is NaN or infinite in {dtype}; nothing was written"):
        lmtasks.api.merge_adapter(adapter, tmp_path / "merged", model=tiny_folder, dtype=dtype)
    assert not any("merged" in entry.name for entry in tmp_path.iterdir())
