"""A small task, its data and trainings, shared by the tests of training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn import functional

import lmtasks
from lmtasks import Field, Generate, Prompt, Task
from lmtasks.api import PlannedTraining, plan_train
from lmtasks.models.adapter_files import find_adapter
from lmtasks.models.loading import load
from lmtasks.prompts import RenderedPrompt, Renderer
from lmtasks.records.adapter import AdapterRecord
from lmtasks.training.lora import train as training

ARCHITECTURES = ("llama", "gpt2", "gpt_neox", "qwen3", "gemma3")


WORDS = ("ferry", "harbour", "nine", "last", "six", "returns", "leaves", "one", "at", "the")


WEIGHTS = "adapter_model.safetensors"


FINISHED = {"README.md", "adapter_config.json", WEIGHTS, "learning-curve.svg", "lmtasks.json"}


ON_CPU = {"device": "cpu", "dtype": "float32"}


# Of a training that the tests of survival disturb: dropout draws random numbers, validations are at every second step.
WHOLE = {"max_steps": 20, "validation": 4, "batch_size": 4, "dropout": 0.1, "learning_rate": 5e-3, **ON_CPU}


def make_task(**changes) -> Task:
    values = {
        "name": "first",
        "version": 3,
        "summary": "Say the first words.",
        "fields": {"text": Field(truncatable=True), "hint": Field(required=False)},
        "prompts": {"plain": Prompt(system="You repeat.", user="$text\nHint: $hint", answer_prefix="First:")},
        "datasets": {"demo": lambda split: iter([])},
        "metrics": ("exact_match", "chrf"),
        "output": Generate(max_new_tokens=4),
    }
    return Task(**(values | changes))


def rows(count: int, start: int = 0) -> list[dict[str, str]]:
    """Return examples whose texts and answers differ in length."""
    made = []
    for number in range(start, start + count):
        text = [WORDS[(number * 7 + place * 3 + place * number) % len(WORDS)] for place in range(3 + number % 6)]
        made.append(
            {"id": f"e{number}", "text": f"{number} {' '.join(text)}", "target": " ".join(text[: 1 + number % 3])}
        )
    return made


def write(file: Path, made: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in made))
    return file


def ready(model: Path, data: dict[str, Path], task: Task | None = None, **options) -> PlannedTraining:
    return plan_train(task or make_task(), model=model, **{**data, "validation": 0, **ON_CPU, **options})


def learn(planned: PlannedTraining, folder: Path, on_progress=lambda *_: None) -> training.TrainedWeights:
    """Train without scoring."""
    return training.train_weights(planned.plan, planned.setup, planned.loaded, folder, on_progress)


def adapter_weights(model: Path, data: dict[str, Path], folder: Path, **options) -> dict[str, torch.Tensor]:
    return load_file(learn(ready(model, data, **options), folder).checkpoint / WEIGHTS)


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def train_whole(model: Path, data: dict[str, Path], adapter: Path, **how) -> lmtasks.TrainedAdapter:
    return lmtasks.train(make_task(), adapter, model=model, **{**data, **WHOLE, **how})


def validations(record: AdapterRecord) -> list[tuple[int, float]]:
    return [(entry.step, entry.eval_loss) for entry in record.training.history if entry.eval_loss is not None]


def same_as_undisturbed(adapter: Path, whole: lmtasks.TrainedAdapter) -> bool:
    record = find_adapter(adapter).record
    assert {path.name for path in adapter.iterdir()} == FINISHED
    assert validations(record) == validations(whole.record)
    assert record.training.best_step == whole.record.training.best_step
    assert (adapter / WEIGHTS).read_bytes() == (whole.path / WEIGHTS).read_bytes()
    return True


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "plain"])
def test_a_training_reads_the_prompts_of_a_run_and_learns_answer_and_end_token(
    tmp_path, tiny_folder, plain_folder, data, chat
):
    model = tiny_folder if chat else plain_folder
    planned = ready(model, data)
    run = lmtasks.run(
        make_task(), model=model, data=data["data"], output_dir=tmp_path, max_new_tokens=1, **ON_CPU
    )  # fmt: skip
    renderer = Renderer(make_task(), planned.loaded.tokenizer)
    lead, end = ("", "<|im_end|>") if chat else (" ", "<|endoftext|>")
    assert len(planned.plan.train) == len(run.samples) == 24
    for example, item, sample in zip(planned.plan.train, planned.setup.train.examples, run.samples, strict=True):
        prompt, answer = item.token_ids[: -item.target_tokens], item.token_ids[-item.target_tokens :]
        assert prompt == renderer.render(example).token_ids
        assert RenderedPrompt(token_ids=prompt).sha256 == sample.prompt_sha256
        assert planned.loaded.tokenizer.decode(list(answer)) == f"{lead}{example.answer}{end}"
        assert answer[-1] in planned.loaded.end_ids


def ids(examples) -> list[str]:
    return [example.id for example in examples]


@torch.no_grad()
def mean_loss(module, items) -> float:
    """Return the mean loss of answers' tokens, each sequence by itself."""
    losses = []
    for item in items:
        ids = torch.tensor([list(item.token_ids)])
        own = functional.cross_entropy(module(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
        losses.append(own[-item.target_tokens :])
    return float(torch.cat(losses).mean())


def loaded_module(folder: Path):
    return load(str(folder), trust_remote_code=False, on_progress=lambda *_: None, **ON_CPU).module


lengths = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def stopping_at(what: str, step: int):
    """Return a listener that breaks a training off, as Ctrl-C does."""

    def hear(doing: str, done: int, total: int, note: str = "") -> None:
        if doing.startswith(what) and done == step:
            raise KeyboardInterrupt

    return hear
