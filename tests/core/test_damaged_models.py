"""Model folders whose files are damaged, contradict each other, or are hostile: each is one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import lmtasks
from lmtasks import Example, Generate, RunOptions, Task
from lmtasks.errors import LmtasksError, ModelError, PathError, PromptError
from lmtasks.models import store
from lmtasks.progress import no_progress

ON_CPU = RunOptions(device="cpu", dtype="float32")
CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"
TASK = Task(
    name="echo",
    version=1,
    summary="Echo.",
    fields=("text",),
    prompts={"plain": "Say $text"},
    datasets={"demo": lambda split: iter([Example(id="a", inputs={"text": "nine"}, references=("nine",))])},
    metrics=("exact_match",),
    output=Generate(max_new_tokens=2),
)
Change = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path, tiny_folder: Path) -> Path:
    """A model to be spoilt."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def spoil(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refused(folder: Path | str, *said: object) -> None:
    """Expect one line from loading a model, or from its first answer."""
    with pytest.raises(LmtasksError) as error:
        lmtasks.ask(TASK, "nine", ON_CPU, model=folder)
    for part in said:
        assert str(part) in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 800


# config.json


@pytest.mark.parametrize("content", [b"", b"null", b"[1]", b"7", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":1,"a":2}'])
@pytest.mark.parametrize("name", [CONFIG, "generation_config.json", "tokenizer_config.json", INDEX])
def test_model_file_that_is_no_json_object_is_refused_by_name(folder, name, content):
    (folder / name).write_bytes(content)
    refused(folder, folder / name, "damaged")


@pytest.mark.parametrize("value", ["x", None, -1, 0, 1.5, [], {}, ["x"], True, 10**30], ids=repr)
@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "head_dim"])
def test_model_size_of_wrong_type_is_refused_in_one_line(folder, field, value):
    spoil(folder / CONFIG, **{field: value})
    if (field, value) == ("head_dim", None):  # is computed from the others
        lmtasks.load_model(folder, ON_CPU)
    else:
        refused(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": None},
        {"model_type": []},
        {"model_type": "bert"},
        {"model_type": "no such"},
        {"rope_parameters": "x"},
        {"rms_norm_eps": {}},
        {"hidden_act": "x"},
        {"layer_types": ["x"]},
        {"auto_map": None},
        {"quantization_config": 7},
        {"text_config": 7},
        {"dtype": 7},
        {"num_labels": 10**12},
    ],
    ids=str,
)
def test_model_config_of_wrong_types_is_refused_in_one_line(folder, changes):
    spoil(folder / CONFIG, **changes)
    refused(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**9},
        {"hidden_size": 2**20, "head_dim": None, "num_attention_heads": 4},
        {"intermediate_size": 2**34},
        {"vocab_size": 2**34},
        {"num_attention_heads": 2**24, "num_key_value_heads": 2**24},
    ],
    ids=str,
)
def test_model_config_larger_than_the_weights_is_refused(folder, changes):
    spoil(folder / CONFIG, **changes)
    refused(folder, folder)


def test_model_config_runs_no_code_of_the_hub(folder):
    spoil(folder / CONFIG, attn_implementation="somebody/kernel")
    refused(folder, "somebody/kernel", "trust_remote_code=True")


def test_model_end_token_beyond_the_vocabulary_does_no_harm(folder):
    spoil(folder / CONFIG, eos_token_id=[10**9])
    spoil(folder / "generation_config.json", eos_token_id=10**9)
    assert lmtasks.ask(TASK, "nine", ON_CPU, model=folder)


# Weights


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content[:7],
        lambda content: (2**60).to_bytes(8, "little") + content[8:],
        lambda content: content.replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1),
        lambda content: content.replace(b'"F32"', b'"Q32"', 1),
        lambda content: content + b"x",
    ],
)
def test_model_weights_that_are_damaged_are_refused(folder, damage):
    (folder / WEIGHTS).write_bytes(damage((folder / WEIGHTS).read_bytes()))
    refused(folder, folder / WEIGHTS, "damaged")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"weight_map": None}, "weight_map: expected an object, got None"),
        ({"weight_map": {"a": 7}}, "expected text, got 7"),
        ({"weight_map": {"a": "model-00002.safetensors"}}, '"model-00002.safetensors", which is not there'),
        ({"weight_map": {"a": "../model.safetensors"}}, "expected a .safetensors file beside it"),
        ({"weight_map": {"a": "/model.safetensors"}}, "expected a .safetensors file beside it"),
        ({"weight_map": {"a": "x" * 300 + ".safetensors"}}, "which is not there"),
        ({"weight_map": {"a": "a\0.safetensors"}}, "which is not there"),
        ({"weight_map": {"a": "config.json"}}, "expected a .safetensors file beside it"),
        ({}, "cannot be loaded"),
    ],
    ids=str,
)
def test_weight_index_that_names_wrong_files_is_refused(folder, content, said):
    shutil.copy(folder / WEIGHTS, folder.parent / WEIGHTS)
    (folder / WEIGHTS).rename(folder / "model-00001.safetensors")
    (folder / INDEX).write_text(json.dumps(content))
    refused(folder, said)


@pytest.mark.parametrize("name", ["../other.safetensors", "/other.safetensors", 7, "other.safetensors"])
def test_model_config_that_names_other_weights_is_refused(folder, name):
    shutil.copy(folder / WEIGHTS, folder.parent / "other.safetensors")
    spoil(folder / CONFIG, transformers_weights=name)
    refused(folder, folder / CONFIG, "names the weight file")


# Tokenizers


def add_token(folder: Path, number: int) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    token = {"id": number, "content": "<big>", "special": True}
    content["added_tokens"].append(token | dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False))
    (folder / "tokenizer.json").write_text(json.dumps(content))


def add_word(folder: Path, number: int) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["ferryboat"] = number
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize("add", [add_token, add_word])
def test_tokenizer_with_more_tokens_than_embeddings_is_refused(folder, add):
    rows = json.loads((folder / CONFIG).read_text())["vocab_size"]
    add(folder, rows)
    refused(folder, "has the token", f"embeddings for the numbers below {rows}")


def test_model_may_have_more_embeddings_than_tokens(folder):
    weights = load_file(folder / WEIGHTS)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = weights[name].repeat(2, 1)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    spoil(folder / CONFIG, vocab_size=len(weights[name]))
    assert lmtasks.load_model(folder, ON_CPU).info.parameters


@pytest.mark.parametrize("content", [b"", b"null", b"[1]", b"{", b"{}", b"\xff\xfe", b"[" * 100_000])
def test_tokenizer_file_that_is_damaged_is_refused_in_one_line(folder, content):
    (folder / "tokenizer.json").write_bytes(content)
    refused(folder)


@pytest.mark.parametrize("part", ["model", "added_tokens", "pre_tokenizer", "decoder", "normalizer", "post_processor"])
@pytest.mark.parametrize("value", [{}, "x", 7, {"type": "x"}, [{}]], ids=str)
def test_tokenizer_parts_of_wrong_types_are_refused_in_one_line(folder, part, value):
    spoil(folder / "tokenizer.json", **{part: value})
    refused(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer_class": 7},
        {"chat_template": 7},
        {"chat_template": {"a": "b"}},
        {"eos_token": {"a": None}},
        {"added_tokens_decoder": {"x": {"content": "y"}}},
    ],
    ids=str,
)
def test_tokenizer_settings_of_wrong_types_are_refused_in_one_line(folder, changes):
    (folder / "chat_template.jinja").unlink()
    spoil(folder / "tokenizer_config.json", **changes)
    refused(folder)


# Chat templates


@pytest.mark.parametrize("template", ["", " \n"])
def test_chat_template_that_is_empty_counts_as_none(folder, template):
    (folder / "chat_template.jinja").write_text(template)
    model = lmtasks.load_model(folder, ON_CPU)
    assert not model.info.chat
    assert lmtasks.api.show("qa", ON_CPU, model=folder).text


@pytest.mark.parametrize("template", ["{% for %}", "{{ raise_exception('no') }}", "{{ 1/0 }}", "{{ '' }}", "{{ a.b }}"])
def test_chat_template_that_fails_is_refused(folder, template):
    (folder / "chat_template.jinja").write_text(template)
    assert lmtasks.load_model(folder, ON_CPU).info.chat
    with pytest.raises(PromptError, match="chat template"):
        lmtasks.ask(TASK, "nine", ON_CPU, model=folder)


# Adapters beside models


@pytest.mark.parametrize("weights", ["adapter_model.safetensors", "adapter_model.bin"])
def test_model_folder_that_holds_an_adapter_is_refused(folder, weights):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}')
    (folder / weights).write_bytes(b"")
    refused(folder, folder, "holds an adapter beside the model", "with model and", "with adapter")


def test_model_that_is_an_adapter_is_refused(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    refused(tmp_path / "adapter", "an adapter, not a model", "with model and", "with adapter")


# Names and the store


@pytest.mark.parametrize("name", ["a" * 300, "~nosuchuser/model", "a\0b", "", "x/" * 3000])
def test_load_model_refuses_names_that_no_file_can_have(name):
    with pytest.raises(PathError, match="model"):
        lmtasks.load_model(name, ON_CPU)


@pytest.mark.parametrize("home", ["a" * 300, "~nosuchuser/home"])
def test_store_home_that_no_folder_can_have_is_refused(monkeypatch, home):
    monkeypatch.setenv("LMTASKS_HOME", home)
    with pytest.raises(PathError, match="LMTASKS_HOME"):
        store.home()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"gguf_sha256": 7}', b"\xff", b"["])
def test_store_refuses_damaged_record_of_a_model(tmp_path, monkeypatch, content):
    monkeypatch.setenv("LMTASKS_HOME", str(tmp_path))
    entry = lmtasks.models.CATALOG[lmtasks.models.DEFAULT]
    mark = tmp_path / "models" / f"{entry.name}-{entry.sha256[:12]}" / "lmtasks.json"
    mark.parent.mkdir(parents=True)
    mark.write_bytes(content)
    for what in (
        lambda: store.find_stored(entry),
        lambda: store.pull(entry, accept_license=True, on_progress=no_progress),
    ):
        with pytest.raises(ModelError) as error:
            what()
        assert str(mark) in str(error.value) and "remove the folder" in str(error.value)
