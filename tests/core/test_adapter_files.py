"""Adapters whose files are damaged, wrong or hostile."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import lmtasks
from lmtasks import Example, Generate, RunOptions, Task
from lmtasks.backends import LanguageModel, Request
from lmtasks.errors import AdapterError
from lmtasks.models import target_modules
from lmtasks.models.adapter_files import find_adapter
from lmtasks.task import SamplingParams

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
ON_CPU = RunOptions(device="cpu", dtype="float32")
ENDLESS = r"((a|b|[a-z_.0-9]+)+)+(?<=\d)q_proj"
"""Matches module names by trying every way to divide them."""


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> LanguageModel:
    return lmtasks.load_model(tiny_folder, ON_CPU)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """An adapter of peft's on two kinds of layers."""
    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        peft = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_folder), config)
        for name, weight in peft.named_parameters():
            if "lora_B" in name:
                weight.data = torch.randn_like(weight) * 0.5
    peft.save_pretrained(folder)
    return folder


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait no longer than needed for what does not end anyway."""
    monkeypatch.setattr(target_modules, "SECONDS", 1)


@pytest.fixture
def adapter(tmp_path: Path, written: Path) -> Path:
    """A copy of it to be spoilt."""
    return Path(shutil.copytree(written, tmp_path / "adapter"))


def make_task(**changes: object) -> Task:
    settings = {
        "name": "echo",
        "version": 1,
        "summary": "Echo.",
        "fields": ("text",),
        "prompts": {"plain": "Say $text"},
        "datasets": {"demo": lambda split: iter([Example(id="a", inputs={"text": "nine"}, references=("nine",))])},
        "metrics": ("exact_match",),
        "output": Generate(max_new_tokens=2),
    }
    return Task(**(settings | changes))


def spoil(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def said_by(model: LanguageModel, adapter: str | None) -> str:
    ids = tuple(model.tokenizer.encode("ferry at nine", add_special_tokens=False))
    [[(_, answer)]] = model.generate([Request("a", ids, SamplingParams(max_new_tokens=8), adapter)], seed=0)
    return answer.text


def refused(model: LanguageModel, folder: Path, *said: object) -> None:
    before = said_by(model, None)
    with pytest.raises(AdapterError) as error:
        model.attach(find_adapter(folder))
    text = str(error.value)
    assert "\n" not in text
    for part in said:
        assert str(part) in text
    assert said_by(model, None) == before


# Patterns


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target_modules", ENDLESS),
        ("exclude_modules", ENDLESS),
        ("rank_pattern", {ENDLESS: 4}),
        ("alpha_pattern", {ENDLESS: 4}),
        ("alpha_pattern", {"q_proj": 8, "((((a{0,60000}){0,60000}){0,60000}){0,60000})*x|" * 20000: 4}),
    ],
)
def test_adapter_pattern_that_takes_too_long_is_refused(model, adapter, hurry, field, value):
    spoil(adapter / CONFIG, **{field: value})
    refused(model, adapter, adapter / CONFIG, f'"{field}"', "names of the modules instead")


def test_adapter_layers_pattern_that_takes_too_long_is_refused(model, adapter, hurry):
    spoil(adapter / CONFIG, layers_to_transform=[0, 1], layers_pattern=["layers", r"((\w|[a-z.])+)+(?<=\d)layers"])
    refused(model, adapter, '"layers_pattern"')


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target_modules", "q_proj("),
        ("exclude_modules", "[z-a]"),
        ("rank_pattern", {"*": 4}),
        ("alpha_pattern", {"a{99999999999999}": 4}),
        ("alpha_pattern", {"(" * 5000 + ")" * 5000: 4}),
    ],
)
def test_adapter_pattern_must_be_a_regular_expression(model, adapter, field, value):
    spoil(adapter / CONFIG, **{field: value})
    refused(model, adapter, adapter / CONFIG, f'"{field}"', "no valid regular expression")


def test_merge_adapter_refuses_pattern_that_takes_too_long(adapter, hurry, tiny_folder, tmp_path):
    spoil(adapter / CONFIG, target_modules=ENDLESS)
    with pytest.raises(AdapterError, match="longer than 1 s"):
        lmtasks.api.merge_adapter(adapter, tmp_path / "merged", model=tiny_folder)
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"target_modules": r".*\.(q|v)_proj"},
        {"target_modules": r"(?i)model\.layers\.\d+\.self_attn\.[QV]_proj"},
        {"target_modules": r".*_proj", "exclude_modules": r".*(k|o|up|down|gate)_proj"},
        {"target_modules": ["q_proj", "k_proj", "v_proj"], "exclude_modules": r".*\.k_proj"},
        {"layers_to_transform": [0, 1], "layers_pattern": "la[xy]ers"},
        {"layers_to_transform": [0, 1]},
        {"r": 64, "rank_pattern": {"[qv]_proj": 4}},
        {"lora_alpha": 64, "alpha_pattern": {r"layers\.\d+\.self_attn\.q_proj": 8, "._proj": 8}},
    ],
    ids=str,
)
def test_adapter_patterns_match_as_in_peft(model, adapter, written, change):
    model.attach(find_adapter(written))
    spoil(adapter / CONFIG, **change)
    model.attach(find_adapter(adapter))
    assert said_by(model, find_adapter(adapter).id) == said_by(model, find_adapter(written).id) != said_by(model, None)


def test_adapter_alpha_pattern_changes_outputs(model, adapter, written):
    spoil(adapter / CONFIG, alpha_pattern={r".*\.1\..*": 80})
    model.attach(find_adapter(written))
    model.attach(find_adapter(adapter))
    assert said_by(model, find_adapter(adapter).id) != said_by(model, find_adapter(written).id)


def test_merge_adapter_refuses_pattern_for_tied_embeddings(adapter, tiny_folder, tmp_path):
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "tied"))
    spoil(folder / "config.json", tie_word_embeddings=True)
    spoil(adapter / CONFIG, target_modules=r".*\.q_proj|lm_.*")
    with pytest.raises(AdapterError, match="cannot be merged"):
        lmtasks.api.merge_adapter(adapter, tmp_path / "merged", model=folder)


# Settings


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("r", None, "a whole number, got None"),
        ("r", 0, "a number of at least 1, got 0"),
        ("r", -4, "a number of at least 1, got -4"),
        ("r", True, "a whole number, got True"),
        ("r", "4", "a whole number, got '4'"),
        ("r", 10**300, "a whole number, got 1000"),
        ("lora_alpha", "eight", "a number, got 'eight'"),
        ("lora_alpha", None, "a number, got None"),
        ("target_modules", None, "text or a list, got None"),
        ("target_modules", [["q_proj"]], "text, got ['q_proj']"),
        ("target_modules", {"q_proj": 1}, "text or a list"),
        ("target_modules", ["q_proj"] * 100_001, "100,001 entries"),
        ("rank_pattern", ["q_proj"], "an object or null"),
        ("rank_pattern", {"q_proj": None}, "a whole number, got None"),
        ("alpha_pattern", {"q_proj": "1"}, "a number, got '1'"),
        ("layers_to_transform", "all", "a whole number or a list or null"),
        ("layers_to_transform", [-1], "a number of at least 0, got -1"),
        ("use_dora", "yes", "true or false or null, got 'yes'"),
        ("base_model_name_or_path", 7, "text or null, got 7"),
    ],
)
def test_adapter_config_of_wrong_types_is_refused_by_name(adapter, field, value, expected):
    spoil(adapter / CONFIG, **{field: value})
    with pytest.raises(AdapterError) as error:
        find_adapter(adapter)
    assert str(error.value).startswith(f"{adapter / CONFIG}: damaged ({field}")
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_adapter_rank_must_be_that_of_the_weights(model, adapter):
    spoil(adapter / CONFIG, r=10**12)
    refused(model, adapter, adapter / CONFIG, "says rank 1000000000000", "matrices of rank 4")
    spoil(adapter / CONFIG, r=4, rank_pattern={"q_proj": 10**12})
    refused(model, adapter, "says rank 1000000000000")


@pytest.mark.parametrize(
    "setting",
    [
        {"use_qalora": True},
        {"megatron_config": {"a": 1}, "megatron_core": "antigravity"},
        {"trainable_token_indices": [1]},
        {"kasa_config": {"beta": 1.0}},
        {"modules_to_save": ["(a+)+b"]},
        {"init_lora_weights": "lora_ga"},
        {"init_lora_weights": "OLoRA"},
    ],
    ids=str,
)
def test_adapter_config_with_unsupported_settings_is_refused(model, adapter, setting):
    spoil(adapter / CONFIG, **setting)
    refused(model, adapter, "is not supported")


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[1]", b"{", b"[" * 100_000, b"\xff\xfe", b'{"r": 1e999}', b'{"r": NaN}']
)
def test_adapter_config_that_is_not_a_json_object_is_refused(adapter, content):
    (adapter / CONFIG).write_bytes(content)
    with pytest.raises(AdapterError) as error:
        find_adapter(adapter)
    assert str(adapter / CONFIG) in str(error.value) and "\n" not in str(error.value)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def with_a_long_header(content: bytes) -> bytes:
    return (2**60).to_bytes(8, "little") + content[8:]


def with_a_wrong_offset(content: bytes) -> bytes:
    return content.replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1)


def without_anything(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [cut, with_a_long_header, with_a_wrong_offset, without_anything])
def test_adapter_weights_that_are_damaged_are_refused(model, adapter, damage):
    content = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(damage(content))
    assert (adapter / WEIGHTS).read_bytes() != content
    refused(model, adapter, "does not fit")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_adapter_weights_must_be_floating_point(model, adapter, dtype):
    save_file({name: weight.to(dtype) for name, weight in load_file(adapter / WEIGHTS).items()}, adapter / WEIGHTS)
    refused(model, adapter, "expected floating-point numbers")


# Brought by a task


def test_run_refuses_damaged_adapter_of_the_task(adapter, model, tmp_path):
    spoil(adapter / CONFIG, r=None)
    task = make_task(adapter=str(adapter))
    with pytest.raises(AdapterError, match='task "echo" brings an adapter: .*damaged .r: expected a whole number'):
        lmtasks.run(task, ON_CPU, model=model, output_dir=tmp_path / "runs")


# The name of the base


def remarks(caplog: pytest.LogCaptureFixture, adapter: Path, model: LanguageModel, folder: Path) -> str:
    caplog.clear()
    lmtasks.run(make_task(), ON_CPU, model=model, adapter=adapter, output_dir=folder / "runs")
    return "\n".join(record.getMessage() for record in caplog.records if record.levelname == "WARNING")


def test_run_warns_of_adapter_that_names_another_base(adapter, model, tmp_path, caplog):
    spoil(adapter / CONFIG, base_model_name_or_path="team/another-7b")
    said = remarks(caplog, adapter, model, tmp_path)
    assert f"{adapter} was trained for team/another-7b" in said and f"runs on {model.info.name}" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("base", ["team/Tiny-Llama", "/models/tiny-llama/", "tiny-llama@v1", None])
def test_run_does_not_warn_of_adapter_that_names_the_base(adapter, model, tmp_path, caplog, base):
    spoil(adapter / CONFIG, base_model_name_or_path=base)
    said = remarks(caplog, adapter, model, tmp_path)
    assert "nonsense" not in said and "does not say which weights and prompt" in said


# Names


@pytest.mark.parametrize("name", ["a" * 300, "~nosuchuser/adapter", "a\0b", ""], ids=["long", "user", "NUL", "empty"])
def test_show_adapter_refuses_impossible_name_in_one_line(name):
    with pytest.raises(lmtasks.errors.LmtasksError) as error:
        lmtasks.api.show_adapter(name)
    assert "adapter" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.slow
def test_merge_command_refuses_too_slow_pattern_in_one_line(adapter, tiny_folder):
    spoil(adapter / CONFIG, target_modules=ENDLESS)
    command = ["adapters", "merge", adapter, "-o", adapter.parent / "merged", "--model", tiny_folder]
    done = subprocess.run(
        [sys.executable, "-c", "from lmtasks.cli.main import main; main()", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]  # behind the progress
    assert said.startswith("lmtasks: ") and '"target_modules"' in said and "Traceback" not in done.stderr
