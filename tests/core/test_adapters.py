from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import lmtasks
from lmtasks import Example, Field, Generation, Prompt, RunOptions, Task
from lmtasks.inference import Completion, LanguageModel, Request
from lmtasks.model.adapter import find_adapter
from lmtasks.prompts import Renderer
from lmtasks.testing import save_tiny_model

ATTENTION = {"gpt2": ["c_attn"]}
MLP = {"gpt2": ["c_fc", "c_proj"]}
ON_CPU = RunOptions(device="cpu", dtype="float32")
WEIGHTS, CONFIG, RECORD = "adapter_model.safetensors", "adapter_config.json", "lmtasks.json"
EXAMPLES = [
    Example(id=f"e{number}", inputs={"text": "ferry at nine " * (1 + number % 3) + str(number)}, references=("nine",))
    for number in range(5)
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Several would only wait for each other with matrices this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_task(name: str = "echo", **changes) -> Task:
    settings = {
        "name": name,
        "version": 1,
        "summary": "Echo.",
        "fields": {"text": Field(cut=True)},
        "prompts": {"first": Prompt(user="Say $text", cue="Said:"), "second": "Repeat $text"},
        "datasets": {"demo": lambda split: iter(EXAMPLES if split == "test" else [])},
        "metrics": ("exact_match", "chrf"),
        "generation": Generation(max_new_tokens=6),
    }
    return Task(**(settings | changes))


def load(folder: Path) -> LanguageModel:
    return lmtasks.load_model(folder, ON_CPU)


def make_adapter(base: Path, folder: Path, *, seed: int = 1, scale: float = 0.5, **lora) -> Path:
    """Write an adapter of random weights as peft does; a scale of 0 leaves it as it is before training."""
    lora = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **lora}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**lora))
        for name, weight in model.named_parameters():
            if "lora_B" in name or "lora_embedding_A" in name:
                weight.data = torch.randn_like(weight) * scale
            elif "lora_magnitude" in name:
                weight.data *= 1 + torch.rand_like(weight)
    model.save_pretrained(folder)
    return folder


def sign(folder: Path, base: LanguageModel, task: Task, **changes) -> Path:
    """Write what lmtasks would have recorded of an adapter's training."""
    renderer = Renderer(task, base.tokenizer)
    record = {
        "schema": 1,
        "weights_sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
        "task": {"name": task.name, "version": task.version},
        "prompt": {"name": renderer.name, "form": "chat", "sha256": renderer.fingerprint()},
        "base": {"name": base.info.name, "revision": base.info.revision},
    }
    (folder / RECORD).write_text(json.dumps(record | changes))
    return folder


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> LanguageModel:
    """A model that adapters are put on and left on; tests that look at its base load one of their own."""
    return load(tiny_folder)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """An adapter of peft alone."""
    return make_adapter(tiny_folder, tmp_path_factory.mktemp("adapters") / "bare")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """Another of peft alone, of another rank and on other layers."""
    folder = tmp_path_factory.mktemp("adapters") / "other"
    return make_adapter(tiny_folder, folder, seed=2, r=2, target_modules=["up_proj", "down_proj"])


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, bare: Path, model: LanguageModel) -> Path:
    """An adapter that lmtasks trained for the task "echo"."""
    folder = tmp_path_factory.mktemp("adapters") / "own"
    shutil.copytree(bare, folder)
    return sign(folder, model, make_task())


@pytest.fixture
def copied(tmp_path: Path, bare: Path) -> Path:
    """An adapter to be spoilt."""
    return Path(shutil.copytree(bare, tmp_path / "spoilt"))


def tokens(model: LanguageModel, text: str) -> tuple[int, ...]:
    return tuple(model.tokenizer.encode(text, add_special_tokens=False))


def put(model: LanguageModel, folder: Path) -> str:
    adapter = find_adapter(folder)
    model.attach(adapter)
    return adapter.sha256


def ask(model: LanguageModel, requests: Sequence[Request], **how) -> list[Completion]:
    answers: dict[int, Completion] = {}
    for finished in model.generate(requests, seed=0, **how):
        answers.update(finished)
    return [answers[place] for place in range(len(requests))]


def say(model: LanguageModel, adapter: str | None = None, rows: int = 5, new: int = 8) -> list[str]:
    """Return what a model says to some prompts."""
    asked = [
        Request(str(row), tokens(model, "ferry at nine " * row), Generation(max_new_tokens=new), adapter)
        for row in range(1, rows + 1)
    ]
    return [answer.text for answer in ask(model, asked)]


def one_line(error: pytest.ExceptionInfo, *said: object) -> str:
    text = str(error.value)
    assert "\n" not in text
    for part in said:
        assert str(part) in text
    return text


# Together as alone


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen3", "gemma3"])
def test_requests_of_several_adapters_answer_together_as_alone(architecture, tmp_path):
    save_tiny_model(tmp_path / "base", architecture)
    model = load(tmp_path / "base")
    attention = ATTENTION.get(architecture, ["q_proj", "v_proj"])
    mlp = MLP.get(architecture, ["gate_proj", "down_proj"])
    first = make_adapter(tmp_path / "base", tmp_path / "first", target_modules=attention)
    second = make_adapter(tmp_path / "base", tmp_path / "second", seed=2, r=7, lora_alpha=7, target_modules=mlp)
    dora = make_adapter(tmp_path / "base", tmp_path / "dora", seed=3, use_dora=True, target_modules=attention)
    adapters = [None, *(put(model, folder) for folder in (first, second, dora))]

    def requests(stops: Sequence[tuple[str, ...]]) -> list[Request]:
        lengths = (3, 40, 7, 1, 22, 9, 15, 2, 30, 5, 11, 18)
        limits = (4, 14, 9)
        return [
            Request(
                str(at),
                tokens(model, "ferry at nine " * length),
                Generation(max_new_tokens=limits[at % 3], stop=stops[at]),
                adapters[at % 4],
            )
            for at, length in enumerate(lengths)
        ]

    whole = [ask(model, [request])[0] for request in requests([()] * 12)]
    # Every second one gets a stop string of its own that it will meet.
    mixed = requests([(answer.text[2:4],) if at % 2 and answer.text[2:4] else () for at, answer in enumerate(whole)])
    alone = [ask(model, [request])[0] for request in mixed]
    assert {answer.finish for answer in alone} == {"stop", "length"}
    for size in (1, 3, 16, None):
        assert ask(model, mixed, batch_size=size) == alone
    assert len({tuple(say(model, adapter)) for adapter in adapters}) == 4, "adapters that change nothing test nothing"
