"""Backends by name, and how a model's backend is chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import lmtasks
from lmtasks import Example, Field, RunOptions, Task
from lmtasks.backends import Capabilities, LanguageModel, Request
from lmtasks.backends.registry import BACKENDS
from lmtasks.errors import AdapterError, ModelError, UsageError
from lmtasks.task import SamplingParams
from lmtasks.testing import FakeModel, save_tiny_model

ON_CPU = {"device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def mamba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that the native backend cannot run."""
    folder = tmp_path_factory.mktemp("models") / "mamba"
    save_tiny_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}
    config = AutoConfig.for_model("mamba", **sizes, eos_token_id=tokenizer.eos_token_id)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def echo_task() -> Task:
    examples = [Example(id="e", inputs={"text": "ferry"}, references=("nine",))]
    return Task(
        name="echo",
        version=1,
        summary="Echo.",
        fields={"text": Field()},
        prompts={"plain": "Say $text"},
        datasets={"demo": lambda split: iter(examples if split == "test" else [])},
        metrics=("exact_match",),
    )


def complete(model: LanguageModel) -> str:
    ids = tuple(model.tokenizer.encode("ferry at nine", add_special_tokens=False))
    [[(_, completion)]] = model.generate([Request("a", ids, SamplingParams(max_new_tokens=5))], seed=0)
    return completion.text


def test_registry_knows_every_value_of_the_option():
    for name in BACKENDS:
        assert RunOptions(backend=name).backend == name
    with pytest.raises(UsageError, match="backend must be one of auto, native, hf-generate, not 'vllm'"):
        RunOptions(backend="vllm")


@pytest.mark.parametrize(
    ("backend", "expected"), [("auto", "native"), ("native", "native"), ("hf-generate", "hf-generate")]
)
def test_load_model_uses_the_backend_of_the_option(tiny_folder, caplog, backend, expected):
    model = lmtasks.load_model(tiny_folder, RunOptions(backend=backend, **ON_CPU))
    assert model.backend == expected
    assert model.capabilities == Capabilities(adapters=True, logprobs=True, streaming=True)
    assert complete(model) == complete(lmtasks.load_model(tiny_folder, RunOptions(**ON_CPU)))
    assert caplog.text == ""


def test_auto_falls_back_to_hf_generate_with_one_warning(mamba, caplog):
    model = lmtasks.load_model(mamba, RunOptions(**ON_CPU))
    assert model.backend == "hf-generate"
    complete(model)
    [warning] = [record for record in caplog.records if record.name.startswith("lmtasks")]
    assert warning.levelname == "WARNING"
    message = warning.getMessage()
    assert str(mamba) in message and "falls back to `generate`" in message and "MambaForCausalLM" in message
    assert "\n" not in message
    assert complete(model) == complete(lmtasks.load_model(mamba, RunOptions(backend="hf-generate", **ON_CPU)))


def test_native_is_refused_in_one_line_where_it_cannot_run(mamba):
    with pytest.raises(ModelError, match="the native backend cannot run MambaForCausalLM") as error:
        lmtasks.load_model(mamba, RunOptions(backend="native", **ON_CPU))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("backend", ["native", "hf-generate"])
def test_run_records_its_backend(tmp_path, tiny_folder, backend):
    options = RunOptions(max_new_tokens=3, output_dir=tmp_path, backend=backend, **ON_CPU)
    run = lmtasks.run(echo_task(), options, model=tiny_folder)
    assert f'"{backend}"' in (run.path / "run.json").read_text()
    words = {
        "native": "native (continuous batching)",
        "hf-generate": "hf-generate (generate of transformers, padded batches)",
    }
    assert words[backend] in (run.path / "report.md").read_text()


def test_fake_model_has_the_capabilities_of_a_backend():
    texts: list[str] = []
    model = FakeModel(["nine"])
    request = Request("a", (65,), SamplingParams(max_new_tokens=5), on_text=texts.append)
    list(model.generate([request], seed=0))
    assert model.capabilities.streaming and texts == ["n", "ni", "nin", "nine"]


@pytest.mark.parametrize(
    ("missing", "option", "error", "message"),
    [
        (
            "adapters",
            "adapter",
            AdapterError,
            "lora: the backend scripted cannot use adapters; adapter='none' runs fake",
        ),
        (
            "logprobs",
            "loglikelihood",
            ModelError,
            "the backend scripted of fake computes no log-likelihoods; leave out",
        ),
    ],
    ids=["adapters", "logprobs"],
)
def test_run_refuses_what_the_backend_cannot_do(tmp_path, missing, option, error, message):
    adapter = tmp_path / "lora"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q"]}'
    )
    save_file({"base_model.model.q.lora_A.weight": np.zeros((1, 1), "float32")}, adapter / "adapter_model.safetensors")
    model = FakeModel(["nine"])
    model.capabilities = replace(model.capabilities, **{missing: False})
    options = RunOptions(output_dir=tmp_path / "runs", **{option: adapter if option == "adapter" else True})
    with pytest.raises(error, match=message) as caught:
        lmtasks.run(echo_task(), options, model=model)
    assert "\n" not in str(caught.value)
    assert model.prompts == [] and not (tmp_path / "runs").exists()


def test_ask_aborts_its_request_when_it_is_interrupted(tmp_path, tiny_folder):
    model = lmtasks.load_model(tiny_folder, RunOptions(**ON_CPU))

    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lmtasks.ask(echo_task(), "ferry", RunOptions(max_new_tokens=20), model=model, on_text=interrupt)
    stats = model.stats()
    assert (stats.running, stats.waiting, stats.reserved_tokens) == (0, 0, 0)
