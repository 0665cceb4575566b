from __future__ import annotations

import gc
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import filelock
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import lmtasks
from lmtasks import Example, Field, Generate, Prompt, Run, Task
from lmtasks.api import PlannedTraining, plan_train
from lmtasks.errors import DataError, LmtasksError, PathError, PromptError, TrainingError, UnknownNameError, UsageError
from lmtasks.kernels.packed_attention import packed_attention
from lmtasks.models.adapter_files import find_adapter
from lmtasks.models.loading import load
from lmtasks.options import TrainOptions
from lmtasks.prompts import RenderedPrompt, Renderer
from lmtasks.records.adapter import AdapterRecord
from lmtasks.records.reading import validate
from lmtasks.testing import save_tiny_model
from lmtasks.training import plan_training
from lmtasks.training.common import monitor, packing
from lmtasks.training.common.checkpoints import checkpoints
from lmtasks.training.common.dataset import TrainingExample
from lmtasks.training.common.micro_batches import TIMED_MICRO_BATCHES
from lmtasks.training.common.packing import answer_losses, collate, supports_packing
from lmtasks.training.common.steps import plan_steps
from lmtasks.training.lora import conduct, prepare
from lmtasks.training.lora import train as training

ARCHITECTURES = ("llama", "gpt2", "gpt_neox", "qwen3", "gemma3")
WORDS = ("ferry", "harbour", "nine", "last", "six", "returns", "leaves", "one", "at", "the")
WEIGHTS = "adapter_model.safetensors"
FINISHED = {"README.md", "adapter_config.json", WEIGHTS, "learning-curve.svg", "lmtasks.json"}
ON_CPU = {"device": "cpu", "dtype": "float32"}
# Of a training that the tests of survival disturb: dropout draws random numbers, validations are at every second step.
WHOLE = {"max_steps": 20, "validation": 4, "batch_size": 4, "dropout": 0.1, "learning_rate": 5e-3, **ON_CPU}


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Several threads only wait for each other with matrices this small, and every training collects garbage."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(before)


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


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    return {
        "data": write(folder / "train.jsonl", rows(24)),
        "eval_data": write(folder / "test.jsonl", rows(5, 100)),
        "output_dir": folder / "runs",
    }


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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, data: dict[str, Path]) -> lmtasks.TrainedAdapter:
    """A training that nothing disturbed."""
    return train_whole(tiny_folder, data, tmp_path_factory.mktemp("adapters") / "whole")


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


# What is learned


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-plain"
    save_tiny_model(folder, chat=False)
    return folder


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


@pytest.mark.parametrize("packed", [True, False])
def test_targets_are_answers_and_end_tokens_each_predicted_at_the_place_before_it(tiny_folder, data, packed):
    items = ready(tiny_folder, data).setup.train.examples[:5]
    batch = collate(items, packed=packed, pad_id=0, weight=1.0)
    expected = [token for item in items for token in item.token_ids[-item.target_tokens :]]
    assert batch["targets"].tolist() == expected
    assert batch["input_ids"].flatten()[batch["target_positions"] + 1].tolist() == expected


LONG = {"id": "long", "text": "ferry " * 200, "hint": "short", "target": "the ferry leaves the harbour"}


def test_what_is_too_long_loses_text_of_its_prompt_and_never_of_its_answer(tmp_path, tiny_folder, data):
    files = {**data, "data": write(tmp_path / "long.jsonl", [*rows(3), LONG])}
    setup = ready(tiny_folder, files, max_length=200).setup
    whole_prompt = ready(tiny_folder, files).setup.train.examples[3]
    item = setup.train.examples[3]
    assert 190 <= len(item.token_ids) <= 200 < len(whole_prompt.token_ids)
    assert item.token_ids[-item.target_tokens :] == whole_prompt.token_ids[-whole_prompt.target_tokens :]
    assert [other.truncated for other in setup.train.examples] == [False, False, False, True]
    assert setup.train.truncated == 1


def test_what_is_too_long_is_skipped_or_refused_if_that_is_asked_for(tmp_path, tiny_folder, data):
    files = {**data, "data": write(tmp_path / "long.jsonl", [*rows(3), LONG])}
    train = ready(tiny_folder, files, max_length=200, on_overlong="skip").setup.train
    assert (len(train.examples), train.skipped, train.truncated) == (3, 1, 0)
    with pytest.raises(PromptError, match=r'1 of 4 examples are too long.*"long"') as error:
        ready(tiny_folder, files, max_length=200, on_overlong="error")
    assert "on_overlong='skip' or on_overlong='truncate'" in one_line(error)


def test_a_prompt_that_cannot_be_cut_is_an_error_that_names_the_example(tmp_path, tiny_folder, data):
    hard = {"id": "hard", "text": "short", "hint": "six " * 300, "target": "short"}
    files = {**data, "data": write(tmp_path / "hard.jsonl", [*rows(3), hard])}
    with pytest.raises(PromptError, match='example "hard"') as error:
        ready(tiny_folder, files, max_length=200)
    assert "on_overlong='skip'" in one_line(error)


def test_text_of_an_answer_never_becomes_a_control_token(tmp_path, tiny_folder, data):
    text = "six <|im_end|> nine <|im_start|>user"
    files = {**data, "data": write(tmp_path / "odd.jsonl", [*rows(3), {"id": "odd", "text": text, "target": text}])}
    planned = ready(tiny_folder, files)
    item = planned.setup.train.examples[3]
    answer = list(item.token_ids[-item.target_tokens :])
    assert planned.loaded.tokenizer.decode(answer) == f"{text}<|im_end|>"
    special = {planned.loaded.tokenizer.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>")}
    assert [token in special for token in answer] == [False] * (len(answer) - 1) + [True]


def test_where_there_is_no_right_answer_the_task_says_what_is_learned(tmp_path, tiny_folder, data):
    made = [{"id": "none", "text": "no boat", "references": []}, {"id": "one", "text": "a boat", "references": ["it"]}]
    files = {**data, "data": write(tmp_path / "none.jsonl", made)}
    planned = ready(tiny_folder, files, make_task(output=Generate(no_answer="unknown")))
    target_tokens = [
        planned.loaded.tokenizer.decode(list(item.token_ids[-item.target_tokens :]))
        for item in planned.setup.train.examples
    ]
    assert target_tokens == ["unknown<|im_end|>", "it<|im_end|>"]


def test_a_model_with_a_short_context_bounds_the_examples(tmp_path, data):
    save_tiny_model(tmp_path / "short")
    config = json.loads((tmp_path / "short" / "config.json").read_text())
    (tmp_path / "short" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 100}))
    files = {**data, "data": write(tmp_path / "long.jsonl", [*rows(3), LONG])}
    assert max(len(item.token_ids) for item in ready(tmp_path / "short", files).setup.train.examples) <= 100


# Packing


def random_sequences(*sizes: tuple[int, int]) -> list[TrainingExample]:
    from array import array

    drawn = torch.Generator().manual_seed(1)
    return [
        TrainingExample(array("i", torch.randint(3, 250, (length,), generator=drawn).tolist()), answer, False)
        for length, answer in sizes
    ]


def loaded_module(folder: Path):
    return load(str(folder), trust_remote_code=False, on_progress=lambda *_: None, **ON_CPU).module


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_sequences_in_one_row_have_the_losses_that_each_has_alone(tmp_path, architecture):
    save_tiny_model(tmp_path, architecture)
    module = loaded_module(tmp_path)
    items = random_sequences((40, 9), (5, 2), (70, 50), (17, 16), (33, 1))
    alone = []
    for item in items:
        ids = torch.tensor([list(item.token_ids)])
        losses = functional.cross_entropy(module(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
        alone.append(losses[-item.target_tokens :])
    before = module.config._attn_implementation
    with packed_attention(module):
        for supports_logits_to_keep in (True, False):
            batch = collate(items, packed=True, pad_id=0, weight=1.0)
            packed = answer_losses(module, batch, supports_logits_to_keep=supports_logits_to_keep)
            assert torch.allclose(packed, torch.cat(alone), rtol=0, atol=1e-4)
        changed = list(items)
        changed[2] = TrainingExample(items[2].token_ids[::-1], items[2].target_tokens, False)
        batch = collate(changed, packed=True, pad_id=0, weight=1.0)
        others = answer_losses(module, batch, supports_logits_to_keep=True).split(
            [item.target_tokens for item in items]
        )
    for place, (losses, own) in enumerate(
        zip(others, packed.split([item.target_tokens for item in items]), strict=True)
    ):
        difference = float((losses - own).abs().max())
        assert difference > 1e-2 if place == 2 else difference < 1e-6
    assert module.config._attn_implementation == before
    assert supports_packing(module, supports_logits_to_keep=True)
    padded = answer_losses(module, collate(items, packed=False, pad_id=0, weight=1.0), supports_logits_to_keep=True)
    assert torch.allclose(padded, torch.cat(alone), rtol=0, atol=1e-4)


def test_what_carries_state_from_token_to_token_is_never_packed():
    common = {"vocab_size": 256, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    module = AutoModelForCausalLM.from_config(AutoConfig.for_model("mamba", **common)).eval()
    assert not supports_packing(module, supports_logits_to_keep=False)


def test_without_packing_the_same_is_learned(tmp_path, tiny_folder, data, monkeypatch):
    how = {"max_steps": 2, "optimizer": "sgd", "learning_rate": 0.01, "max_grad_norm": 0.0}
    packed = adapter_weights(tiny_folder, data, tmp_path / "packed", **how)
    monkeypatch.setattr("lmtasks.training.lora.prepare.supports_packing", lambda *_, **__: False)
    planned = ready(tiny_folder, data, **how)
    assert not planned.setup.packed
    padded = load_file(learn(planned, tmp_path / "padded").checkpoint / WEIGHTS)
    assert distance(packed, padded) < 1e-5


# Training


@torch.no_grad()
def mean_loss(module, items) -> float:
    """Return the mean loss of answers' tokens, each sequence by itself."""
    losses = []
    for item in items:
        ids = torch.tensor([list(item.token_ids)])
        own = functional.cross_entropy(module(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
        losses.append(own[-item.target_tokens :])
    return float(torch.cat(losses).mean())


@pytest.mark.parametrize("kind", [{}, {"rslora": True}, {"dora": True}, {"dropout": 0.5}], ids=str)
def test_a_fresh_adapter_changes_nothing_and_losses_are_means_over_the_tokens_of_answers(
    tmp_path, tiny_folder, data, kind
):
    planned = ready(tiny_folder, data, max_steps=1, batch_size=18, validation=6, **kind)
    history = learn(planned, tmp_path / "training").record.history
    # The base's own losses, without an adapter.
    module = planned.loaded.module
    assert history[0].step == 0
    assert history[0].eval_loss == pytest.approx(mean_loss(module, planned.setup.validation.examples), abs=1e-5)
    if "dropout" not in kind:
        assert history[1].loss == pytest.approx(mean_loss(module, planned.setup.train.examples), abs=1e-3)


def test_training_moves_the_weights_of_the_adapter_and_leaves_the_base_as_it_was(tmp_path, tiny_folder, data):
    planned = ready(tiny_folder, data, max_steps=2, gradient_checkpointing=True)
    module = planned.loaded.module
    pristine = loaded_module(tiny_folder)
    weights = load_file(learn(planned, tmp_path / "training").checkpoint / WEIGHTS)
    assert module.state_dict().keys() == pristine.state_dict().keys()
    assert all(torch.equal(weight, module.state_dict()[name]) for name, weight in pristine.state_dict().items())
    assert [type(layer) for layer in module.modules()] == [type(layer) for layer in pristine.modules()]
    assert module.config._attn_implementation == pristine.config._attn_implementation
    assert not module.training
    assert all(weight.abs().max() > 0 for weight in weights.values())


def test_a_step_is_the_same_in_however_many_parts(tmp_path, tiny_folder, data):
    # Plain steps down an unclipped gradient: any other scale or weighting of parts would show.
    how = {"max_steps": 2, "optimizer": "sgd", "learning_rate": 0.02, "max_grad_norm": 0.0}
    results = {}
    for parts in (1, 2, 8, 16):  # of 8 examples
        planned = ready(tiny_folder, data, gradient_accumulation=parts, **how)
        done = learn(planned, tmp_path / str(parts))
        losses = [entry.loss for entry in done.record.history if entry.loss is not None]
        results[parts] = load_file(done.checkpoint / WEIGHTS), losses
    weights, losses = results.pop(1)
    assert max(float(weight.abs().max()) for name, weight in weights.items() if "lora_B" in name) > 1e-3
    for others, other_losses in results.values():
        assert distance(weights, others) < 1e-5
        assert other_losses == pytest.approx(losses, abs=1e-4)


@pytest.mark.parametrize("set_by_a_launcher", ["bf16", "fp16"])
def test_a_launcher_does_not_change_the_dtype(tmp_path, tiny_folder, data, monkeypatch, set_by_a_launcher):
    without = adapter_weights(tiny_folder, data, tmp_path / "without", max_steps=2)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", set_by_a_launcher)
    assert distance(without, adapter_weights(tiny_folder, data, tmp_path / "with", max_steps=2)) == 0


def test_gradient_checkpointing_gives_the_same_weights(tmp_path, tiny_folder, data):
    how = {"max_steps": 3, "dropout": 0.1}
    kept = adapter_weights(tiny_folder, data, tmp_path / "kept", **how)
    again = adapter_weights(tiny_folder, data, tmp_path / "again", gradient_checkpointing=True, **how)
    assert distance(kept, again) < 1e-6


def test_a_seed_gives_the_same_weights_to_the_bit_and_another_seed_others(tmp_path, tiny_folder, data):
    how = {"max_steps": 3, "dropout": 0.1}
    first = adapter_weights(tiny_folder, data, tmp_path / "first", seed=1, **how)
    again = adapter_weights(tiny_folder, data, tmp_path / "again", seed=1, **how)
    other = adapter_weights(tiny_folder, data, tmp_path / "other", seed=2, **how)
    assert distance(first, again) == 0
    # By more than these steps can move a weight: the first weights are others.
    assert distance(first, other) > 0.05


@pytest.mark.parametrize("architecture", ARCHITECTURES[1:])
def test_other_architectures_learn_too(tmp_path, data, architecture):
    save_tiny_model(tmp_path / "model", architecture)
    planned = ready(tmp_path / "model", data, max_steps=4, learning_rate=1e-2, batch_size=24)
    assert planned.setup.packed
    history = learn(planned, tmp_path / "training").record.history
    assert history[-1].loss < history[0].loss - 0.1


def test_an_adapter_of_a_base_in_bfloat16_is_in_float32(tmp_path, tiny_folder, data):
    planned = ready(tiny_folder, data, max_steps=2, validation=4, dtype="bfloat16")
    assert planned.loaded.module.dtype == torch.bfloat16
    weights = load_file(learn(planned, tmp_path).checkpoint / WEIGHTS)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert all(weight.abs().max() > 0 for weight in weights.values())


# Steps

lengths = st.lists(st.integers(1, 60), min_size=1, max_size=40)


@given(lengths, st.integers(1, 12), st.integers(1, 3), st.integers(0, 5))
@settings(deadline=None, max_examples=50)
def test_every_pass_learns_every_example_once_and_all_steps_but_the_last_are_full(sizes, batch_size, epochs, seed):
    how = {"batch_size": batch_size, "batch_tokens": None, "max_steps": None, "epochs": float(epochs), "seed": seed}
    steps = plan_steps(sizes, **how)
    places = [place for step in steps for place in step]
    assert len(places) == epochs * len(sizes)
    for start in range(0, len(places), len(sizes)):
        assert sorted(places[start : start + len(sizes)]) == list(range(len(sizes)))
    assert all(len(step) == batch_size for step in steps[:-1])
    assert 1 <= len(steps[-1]) <= batch_size
    assert steps == plan_steps(sizes, **how)


@given(lengths, st.integers(1, 100), st.integers(1, 3))
@settings(deadline=None, max_examples=50)
def test_a_step_has_no_more_tokens_than_asked_for_unless_one_sequence_alone_has(sizes, batch_tokens, epochs):
    steps = plan_steps(
        sizes, batch_size=2, batch_tokens=batch_tokens, epochs=float(epochs), max_steps=None, seed=0
    )  # fmt: skip
    assert Counter(place for step in steps for place in step) == dict.fromkeys(range(len(sizes)), epochs)
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        tokens = sum(sizes[place] for place in step)
        assert tokens <= batch_tokens or len(step) == 1
        assert following is None or tokens + sizes[following[0]] > batch_tokens


@given(lengths, st.integers(1, 12), st.integers(1, 50), st.one_of(st.none(), st.integers(1, 100)))
@settings(deadline=None, max_examples=50)
def test_as_many_steps_as_asked_for_all_of_them_full(sizes, batch_size, max_steps, batch_tokens):
    steps = plan_steps(
        sizes, batch_size=batch_size, batch_tokens=batch_tokens, epochs=1.0, max_steps=max_steps, seed=0
    )  # fmt: skip
    assert len(steps) == max_steps
    assert batch_tokens is not None or all(len(step) == batch_size for step in steps)


def test_passes_are_in_orders_of_their_own_by_seed():
    def passes(seed):
        how = {"batch_size": 30, "batch_tokens": None, "epochs": 2.0, "max_steps": None, "seed": seed}
        return plan_steps([1] * 30, **how)

    first, second = passes(0)
    assert first != second
    assert passes(1)[0] not in (first, second)


def test_a_part_of_a_pass_is_learned_if_that_is_asked_for():
    steps = plan_steps([1] * 10, batch_size=4, batch_tokens=None, epochs=0.5, max_steps=None, seed=0)
    assert sum(map(len, steps)) == len({place for step in steps for place in step}) == 5


# Data


def divided(tmp_path: Path, made: list[dict], task: Task | None = None, **options):
    file = write(tmp_path / "data.jsonl", made)
    return plan_training(task or make_task(), None, TrainOptions(data=file, **options))


def ids(examples) -> list[str]:
    return [example.id for example in examples]


def test_without_other_data_a_part_is_held_out_and_said_by_its_seed(tmp_path):
    plan = divided(tmp_path, rows(40), seed=7)
    assert (len(plan.evaluation.examples), len(plan.validation), len(plan.train)) == (4, 2, 34)
    assert sorted([*ids(plan.train), *ids(plan.validation), *ids(plan.evaluation.examples)]) == sorted(
        row["id"] for row in rows(40)
    )
    assert plan.evaluation.split == "4 held out by seed 7"
    again, other = divided(tmp_path, rows(40), seed=7), divided(tmp_path, rows(40), seed=8)
    assert again.evaluation == plan.evaluation and again.validation == plan.validation
    assert other.evaluation.examples != plan.evaluation.examples


def test_what_asks_the_same_stays_together(tmp_path):
    made = rows(12)
    twins = [{**row, "id": f"twin-{row['id']}", "text": f" {row['text'].upper()}"} for row in made]
    for seed in range(5):
        plan = divided(tmp_path, [*made, *twins], seed=seed, eval_limit=6, validation=4)
        for part in (plan.train, plan.validation, plan.evaluation.examples):
            assert part
            numbers = Counter(example.inputs["text"].split()[0] for example in part)
            assert set(numbers.values()) == {2}


def test_the_number_held_out_that_is_said_is_the_number_held_out(tmp_path):
    made = rows(12)
    plan = divided(tmp_path, [*made, *({**row, "id": f"twin-{row['id']}"} for row in made)], eval_limit=5)
    assert plan.evaluation.split == f"{len(plan.evaluation.examples)} held out by seed 0"


def test_data_that_asks_everything_twice_still_has_something_held_out_or_is_refused(tmp_path):
    made = rows(6)
    try:
        plan = divided(tmp_path, [*made, *({**row, "id": f"twin-{row['id']}"} for row in made)])
    except DataError as error:
        assert "eval_data" in str(error)
    else:
        assert plan.evaluation.examples


def test_data_that_asks_only_one_thing_cannot_be_divided(tmp_path):
    with pytest.raises(DataError, match="eval_data"):
        divided(tmp_path, [{**row, "text": "the same"} for row in rows(12)])


def test_copies_in_the_evaluation_data_are_refused_by_name(tmp_path):
    other = write(tmp_path / "other.jsonl", [{**rows(1, 3)[0], "id": "copy"}, *rows(3, 50)])
    with pytest.raises(DataError) as error:
        divided(tmp_path, rows(8), eval_data=other)
    said = one_line(error)
    assert str(tmp_path / "data.jsonl") in said and str(other) in said and '"e3"' in said
    assert "1 example" in said


def test_what_differs_from_evaluation_data_by_space_or_case_alone_is_left_out_and_counted(tmp_path):
    near = [{**row, "text": f"  {row['text'].upper().replace(' ', '  ')}"} for row in rows(2, 3)]
    other = write(tmp_path / "other.jsonl", [*near, *rows(3, 50)])
    plan = divided(tmp_path, rows(8), eval_data=other, validation=2)
    assert plan.overlap_removed == 2
    assert sorted([*ids(plan.train), *ids(plan.validation)]) == ["e0", "e1", "e2", "e5", "e6", "e7"]
    assert len(plan.evaluation.examples) == 5


def test_another_split_of_the_same_file_is_scored(tmp_path):
    made = [{**row, "split": "train"} for row in rows(8)] + [{**row, "split": "test"} for row in rows(3, 50)]
    plan = divided(tmp_path, [*made, *({**row, "split": "odd"} for row in rows(2, 70))])
    assert (plan.data.split, plan.evaluation.split) == ("train", "test")
    assert ids(plan.evaluation.examples) == ["e50", "e51", "e52"]
    assert len(plan.train) + len(plan.validation) == 8
    plan = divided(tmp_path, [*made, *({**row, "split": "odd"} for row in rows(2, 70))], eval_split="odd")
    assert ids(plan.evaluation.examples) == ["e70", "e71"]
    with pytest.raises(DataError, match='no split "none"'):
        divided(tmp_path, made, eval_split="none")


def test_another_split_that_holds_the_same_is_refused(tmp_path):
    made = [{**row, "split": "train"} for row in rows(8)]
    with pytest.raises(DataError, match="1 example.*e2"):
        divided(tmp_path, [*made, {**rows(1, 2)[0], "id": "copy", "split": "test"}])


def test_a_file_of_one_split_is_divided(tmp_path):
    plan = divided(tmp_path, [{**row, "split": "train"} for row in rows(20)])
    assert plan.evaluation.split == "train, 2 held out by seed 0"


def test_examples_without_an_answer_cannot_be_learned(tmp_path):
    made = [{name: text for name, text in row.items() if name != "target"} for row in rows(8)]
    with pytest.raises(DataError, match='8 of 8 examples have no answer to train on.*"e0"') as error:
        divided(tmp_path, made)
    assert "columns={'references': 'COLUMN'}" in one_line(error)


def test_limits_count_the_first_examples_of_each_part(tmp_path):
    other = write(tmp_path / "other.jsonl", rows(9, 50))
    plan = divided(tmp_path, rows(20), limit=6, eval_data=other, eval_limit=4, validation=0)
    assert ids(plan.train) == [f"e{number}" for number in range(6)]
    assert ids(plan.evaluation.examples) == ["e50", "e51", "e52", "e53"]
    assert not plan.validation
    assert len(divided(tmp_path, rows(20), eval_limit=5).evaluation.examples) == 5


def test_holding_out_everything_is_refused(tmp_path):
    with pytest.raises(DataError, match="no training data is left of 6 examples"):
        divided(tmp_path, rows(6), eval_limit=6)


# Survival

KILLED = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import gc
import torch
torch.set_num_threads(1)
import test_training
from lmtasks.training.common import monitor
from lmtasks.training.common.trainer import PlannedTrainer
monitor.SAVE_SECONDS = 0
write_last = PlannedTrainer.save_rng_state
def write_slowly(self, folder):
    time.sleep(0.03)  # so that there is a torn checkpoint to be seen
    write_last(self, folder)
PlannedTrainer.save_rng_state = write_slowly
gc.collect()
gc.freeze()
adapter = Path({adapter!r})
work = adapter / "training"
def newest():
    return max((int(path.name[11:]) for path in work.glob("checkpoint-*")), default=0)
def torn():
    return max((int(path.name[12:-5]) for path in work.glob(".checkpoint-*.part")), default=0)
moments = {{
    "scoring before": lambda: (work / "state.json").exists(),
    "a checkpoint": lambda: newest() >= 3,
    "half a checkpoint": lambda: torn() >= 7,
    "a later checkpoint": lambda: newest() >= 14,
    "weights in place": lambda: (adapter / "adapter_model.safetensors").exists(),
    "scoring after": lambda: '"trained": null' not in (work / "state.json").read_text(),
    "the end": lambda: False,
}}
for moment, reached in moments.items():
    resume = (work / "state.json").exists()
    child = os.fork()
    if child == 0:
        try:
            test_training.train_whole(
                Path({model!r}), {{name: Path(path) for name, path in {data!r}.items()}}, adapter, resume=resume
            )
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    ended = 0
    while not ended and not reached():
        time.sleep(0.002)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print("killed at", moment)
    elif status or moment != "the end":
        sys.exit(f"ended before {{moment}}, status {{status}}")
"""


def test_a_training_that_is_killed_again_and_again_ends_as_one_that_was_not(tmp_path, tiny_folder, data, whole):
    files = {name: str(path) for name, path in {**data, "output_dir": tmp_path / "runs"}.items()}
    adapter = tmp_path / "adapter"
    code = KILLED.format(
        tests=str(Path(__file__).parent), adapter=str(adapter), model=str(tiny_folder), data=files
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("killed at") == 6
    assert same_as_undisturbed(adapter, whole)


def stopping_at(what: str, step: int):
    """Return a listener that breaks a training off, as Ctrl-C does."""

    def hear(doing: str, done: int, total: int, note: str = "") -> None:
        if doing.startswith(what) and done == step:
            raise KeyboardInterrupt

    return hear


@pytest.mark.parametrize(("what", "step", "resumed"), [("training", 0, None), ("training", 7, 6), ("training", 20, 18)])
def test_an_interrupted_training_goes_on_where_it_stopped(tmp_path, tiny_folder, data, whole, what, step, resumed):
    files = {**data, "output_dir": tmp_path / "runs"}
    adapter = tmp_path / "adapter"
    with pytest.raises(KeyboardInterrupt):
        train_whole(tiny_folder, files, adapter, on_progress=stopping_at(what, step))
    assert {path.name for path in adapter.iterdir()} == {"training"}
    done = train_whole(tiny_folder, files, adapter, resume=True)
    assert done.record.training.resumed_at == resumed
    assert same_as_undisturbed(adapter, whole)
    assert len(list((tmp_path / "runs").iterdir())) == 2


@pytest.mark.parametrize("step", ["copy_weights", "write_card"])
def test_a_training_interrupted_behind_its_last_step_goes_on_too(tmp_path, tiny_folder, data, whole, monkeypatch, step):
    def interrupt(*_):
        raise KeyboardInterrupt

    files = {**data, "output_dir": tmp_path / "runs"}
    with monkeypatch.context() as patched:
        patched.setattr(training if step == "copy_weights" else conduct, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_whole(tiny_folder, files, tmp_path / "adapter")
    with pytest.raises(TrainingError, match="has not finished; resume it with resume=True"):
        train_whole(tiny_folder, files, tmp_path / "adapter")
    train_whole(tiny_folder, files, tmp_path / "adapter", resume=True)
    assert same_as_undisturbed(tmp_path / "adapter", whole)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, data: dict[str, Path]) -> Path:
    """A training that was interrupted behind its checkpoint of step 4."""
    folder = tmp_path_factory.mktemp("unfinished")
    with pytest.raises(KeyboardInterrupt):
        train_whole(
            tiny_folder, {**data, "output_dir": folder / "runs"}, folder / "adapter",
            on_progress=stopping_at("training", 5),
        )  # fmt: skip
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"learning_rate": 0.25}, ["settings.learning_rate 0.005, now 0.25"]),
        ({"rank": 2, "seed": 1}, ["settings.rank 16, now 2", "settings.seed 0, now 1"]),
        ({"target_modules": ["q_proj"]}, ["settings.target_modules ['all-linear'], now ['q_proj']"]),
        ({"max_steps": 21}, ["settings.max_steps 20, now 21"]),
        ({"limit": 23}, ["settings.limit None, now 23"]),
    ],
    ids=str,
)
def test_a_training_goes_on_only_as_it_was_begun(tiny_folder, data, unfinished, change, told):
    before = contents(unfinished)
    files = {**data, "output_dir": unfinished / "runs"}
    with pytest.raises(TrainingError, match="was begun with other settings") as error:
        train_whole(tiny_folder, files, unfinished / "adapter", resume=True, **change)
    said = one_line(error)
    assert all(words in said for words in told)
    assert contents(unfinished) == before


def test_an_unfinished_training_is_not_begun_anew_by_mistake(tiny_folder, data, unfinished):
    before = contents(unfinished)
    with pytest.raises(TrainingError, match="has not finished; resume it with resume=True"):
        train_whole(tiny_folder, data, unfinished / "adapter")
    assert contents(unfinished) == before


@pytest.mark.parametrize("file", [WEIGHTS, "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"])
def test_a_damaged_checkpoint_is_named(tmp_path, tiny_folder, data, unfinished, file):
    shutil.copytree(unfinished, tmp_path / "copy")
    damaged = tmp_path / "copy" / "adapter" / "training" / "checkpoint-4"
    (damaged / file).write_bytes((damaged / file).read_bytes()[:100])
    files = {**data, "output_dir": tmp_path / "copy" / "runs"}
    with pytest.raises(TrainingError, match="checkpoint-4: .*remove it to resume from the one before") as error:
        train_whole(tiny_folder, files, tmp_path / "copy" / "adapter", resume=True)
    one_line(error)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("global_step", "4", "global_step: expected a whole number, got '4'"),
        ("global_step", 0, "global_step: expected a number of at least 1, got 0"),
        ("max_steps", None, "max_steps: expected a whole number, got None"),
        ("best_metric", "low", "best_metric: expected a number or null, got 'low'"),
        ("log_history", {"step": 1}, "log_history: expected a list"),
        ("log_history", [{"step": 1, "loss": "low"}], "log_history[0].loss: expected a number"),
        ("log_history", [{"loss": 1.0}], "log_history[0].step: missing"),
        ("stateful_callbacks", [], "stateful_callbacks: expected an object"),
        ("stateful_callbacks", {"TrainerControl": {"args": 1}}, "stateful_callbacks.TrainerControl.args: expected"),
    ],
)
def test_checkpoint_state_of_wrong_types_is_named(tmp_path, tiny_folder, data, unfinished, name, value, told):
    shutil.copytree(unfinished, tmp_path / "copy")
    file = tmp_path / "copy" / "adapter" / "training" / "checkpoint-4" / "trainer_state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
    with pytest.raises(TrainingError, match="checkpoint-4: .*remove it to resume from the one before") as error:
        train_whole(
            tiny_folder, {**data, "output_dir": tmp_path / "copy" / "runs"}, tmp_path / "copy" / "adapter", resume=True
        )
    assert told in one_line(error)


def resume_refused(tmp_path: Path, model: Path, data: dict[str, Path]) -> str:
    """Resume a copy of a training in tmp_path and return the one line that refuses its checkpoint, unchanged."""
    before = contents(tmp_path / "copy" / "adapter")
    with pytest.raises(TrainingError, match="this checkpoint cannot be read .*remove it to resume") as error:
        train_whole(
            model, {**data, "output_dir": tmp_path / "copy" / "runs"}, tmp_path / "copy" / "adapter", resume=True
        )
    assert contents(tmp_path / "copy" / "adapter") == before
    return one_line(error)


@pytest.mark.parametrize(
    "file",
    [WEIGHTS, "adapter_config.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"],
)
def test_checkpoint_without_a_file_is_not_resumed(tmp_path, tiny_folder, data, unfinished, file):
    shutil.copytree(unfinished, tmp_path / "copy")
    (tmp_path / "copy" / "adapter" / "training" / "checkpoint-4" / file).unlink()
    assert f"checkpoint-4: this checkpoint cannot be read ({file} is missing)" in resume_refused(
        tmp_path, tiny_folder, data
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"global_step": 2}, "trainer_state.json is of step 2"),
        ({"max_steps": 4}, "trainer_state.json is of a training of 4 steps, and 20 are planned"),
        (
            {"best_global_step": 3},
            "its best_global_step is 3, and of checkpoint-3 adapter_model.safetensors is missing",
        ),
    ],
    ids=str,
)
def test_checkpoint_of_another_step_or_training_is_not_resumed(tmp_path, tiny_folder, data, unfinished, change, told):
    shutil.copytree(unfinished, tmp_path / "copy")
    file = tmp_path / "copy" / "adapter" / "training" / "checkpoint-4" / "trainer_state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert told in resume_refused(tmp_path, tiny_folder, data)


def test_checkpoint_behind_the_last_planned_step_is_not_resumed(tmp_path, tiny_folder, data, unfinished):
    shutil.copytree(unfinished, tmp_path / "copy")
    folder = tmp_path / "copy" / "adapter" / "training"
    (folder / "checkpoint-4").rename(folder / "checkpoint-40")
    file = folder / "checkpoint-40" / "trainer_state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"global_step": 40}))
    assert "only 20 steps are planned" in resume_refused(tmp_path, tiny_folder, data)


def test_checkpoint_without_one_of_its_weights_is_not_resumed(tmp_path, tiny_folder, data, unfinished):
    shutil.copytree(unfinished, tmp_path / "copy")
    file = tmp_path / "copy" / "adapter" / "training" / "checkpoint-4" / WEIGHTS
    weights = load_file(file)
    name = sorted(weights)[0]
    del weights[name]
    save_file(weights, file)
    assert f"{name} is expected in shape" in resume_refused(tmp_path, tiny_folder, data)


@pytest.mark.parametrize("name", ["checkpoint-²", "checkpoint-007", "checkpoint-0"])
def test_folder_that_is_no_checkpoint_is_left_alone(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-7").mkdir()
    assert checkpoints(tmp_path) == {7: tmp_path / "checkpoint-7"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps": "20"}, "steps: expected a whole number, got '20'"),
        ({"steps": 0}, "steps: expected a number of at least 1, got 0"),
        ({"before": 3}, "before: expected text or null, got 3"),
        ({"after": []}, "after: expected text or null, got []"),
        ({"trained": {}}, "trained.made: missing"),
        ({"trained": True}, "trained: expected an object or null, got True"),
        ({"decisive": None}, "decisive: expected an object, got None"),
        ({"decisive": json.loads("[" * 200 + "]" * 200)}, "nested too deeply"),
        ({"schema": 1}, "schema 1; this lmtasks reads schema 2"),
        ("", "Expecting value"),
        ("[]", "expected an object, got []"),
        ('{"schema": 2, "schema": 2}', "the key 'schema' occurs twice"),
        ('{"schema": 2, "steps": NaN}', "NaN is not a JSON number"),
    ],
)
def test_damaged_state_of_a_training_is_named(tmp_path, monkeypatch, change, told):
    monkeypatch.setattr("lmtasks.models.loading.load", lambda *_, **__: pytest.fail("the model was loaded"))
    folder = tmp_path / "adapter" / "training"
    folder.mkdir(parents=True)
    state = {
        "schema": 2,
        "decisive": {"settings": {"chat_template_date": None}},
        "steps": 20,
        "before": None,
        "trained": None,
        "after": None,
    }
    (folder / "state.json").write_text(change if isinstance(change, str) else json.dumps(state | change))
    with pytest.raises(TrainingError) as error:
        lmtasks.train(make_task(), tmp_path / "adapter", model="none", resume=True)
    said = one_line(error)
    assert str(folder / "state.json") in said
    assert told in said


@pytest.mark.parametrize("output", ["x" * 256, "~nosuchuser/adapter", "a\0b"])
def test_adapter_folder_that_cannot_be_is_refused(tmp_path, output):
    with pytest.raises(PathError, match="adapter folder") as error:
        lmtasks.train(make_task(), output, model="none")
    one_line(error)


def test_a_training_whose_checkpoint_was_removed_begins_anew(tmp_path, tiny_folder, data, unfinished, whole):
    shutil.copytree(unfinished, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "adapter" / "training" / "checkpoint-4")
    files = {**data, "output_dir": tmp_path / "copy" / "runs"}
    train_whole(tiny_folder, files, tmp_path / "copy" / "adapter", resume=True)
    assert same_as_undisturbed(tmp_path / "copy" / "adapter", whole)


@pytest.mark.parametrize("faster", [0.5, 2.0])
def test_a_training_of_some_minutes_keeps_its_steps_when_it_is_resumed(
    tmp_path, tiny_folder, data, monkeypatch, faster
):
    tokens = ready(tiny_folder, data).setup.train.tokens
    # The machine is not as fast the second time; no clock runs out.
    speeds = iter([1.0, 1.0 / faster])
    monkeypatch.setattr(prepare, "_measure", lambda *_, **__: (next(speeds), None))
    monkeypatch.setattr(monitor, "SAVE_SECONDS", 0)
    how = {**data, **ON_CPU, "output_dir": tmp_path / "runs", "validation": 0, "epochs": 50.0}
    how["max_minutes"] = 4 * tokens / 60
    plans: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        lmtasks.train(
            make_task(), tmp_path / "adapter", model=tiny_folder, on_progress=stopping_at("training", 8),
            on_plan=lambda record: plans.append(record["steps"]), **how,
        )  # fmt: skip
    done = lmtasks.train(make_task(), tmp_path / "adapter", model=tiny_folder, resume=True, **how)
    record = done.record.training
    assert record.steps == record.planned_steps == plans[0] == 12
    rates = [entry.learning_rate for entry in record.history][1:]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_finished_adapter_is_left_alone(tiny_folder, data, whole, resume):
    before = contents(whole.path)
    with pytest.raises(TrainingError, match="holds a finished adapter"):
        train_whole(tiny_folder, data, whole.path, resume=resume)
    assert contents(whole.path) == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_something_else_is_left_alone(tmp_path, tiny_folder, data, resume):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("Years of work")
    with pytest.raises(TrainingError, match="is not empty and no adapter of lmtasks"):
        train_whole(tiny_folder, data, tmp_path / "thesis", resume=resume)
    assert contents(tmp_path) == {"thesis/chapter.txt": b"Years of work"}
    with pytest.raises(TrainingError, match="a file; name a folder"):
        train_whole(tiny_folder, data, tmp_path / "thesis" / "chapter.txt", resume=resume)


def test_there_must_be_something_to_resume(tmp_path, tiny_folder, data):
    with pytest.raises(TrainingError, match="nothing to resume"):
        train_whole(tiny_folder, data, tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_another_process_trains_in_is_left_to_it(tmp_path, tiny_folder, data):
    (tmp_path / "adapter" / "training").mkdir(parents=True)
    with filelock.FileLock(tmp_path / "adapter" / "training" / ".lock"):
        with pytest.raises(TrainingError, match="another process trains in this folder"):
            train_whole(tiny_folder, data, tmp_path / "adapter")
        assert contents(tmp_path) == {"adapter/training/.lock": b""}


def test_what_is_refused_leaves_no_folder(tmp_path, tiny_folder, data):
    with pytest.raises(DataError):
        train_whole(tiny_folder, {**data, "eval_data": data["data"]}, tmp_path / "adapter")
    assert not any(tmp_path.iterdir())


# Trouble


def finite(folder: Path) -> bool:
    return all(bool(weight.isfinite().all()) for weight in load_file(folder / WEIGHTS).values())


@pytest.mark.parametrize("validation", [0, 4])
def test_a_training_that_diverges_ends_with_an_error_and_keeps_a_good_checkpoint(
    tmp_path, tiny_folder, data, monkeypatch, validation
):
    monkeypatch.setattr(monitor, "SAVE_SECONDS", 0)
    honest = packing.answer_losses
    calls = Counter()
    sixth = TIMED_MICRO_BATCHES + 1 + 6  # behind those that are timed

    def losses(model, batch, *, supports_logits_to_keep):
        calls[model.training] += 1
        return honest(model, batch, supports_logits_to_keep=supports_logits_to_keep) * (
            float("nan") if calls[True] == sixth else 1
        )

    monkeypatch.setattr(prepare, "answer_losses", losses)
    files = {**data, "output_dir": tmp_path / "runs"}
    with pytest.raises(TrainingError, match="NaN or infinite at step 6") as error:
        train_whole(tiny_folder, files, tmp_path / "adapter", validation=validation)
    assert "learning_rate" in one_line(error)
    kept = checkpoints(tmp_path / "adapter" / "training")
    assert max(kept) == 5
    assert all(finite(path) for path in kept.values())


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("validation", [0, 4])
def test_a_senseless_learning_rate_never_ends_in_an_adapter_of_no_numbers(
    tmp_path, tiny_folder, data, steps, validation
):
    how = {"learning_rate": 1e30, "warmup": 0.0, "max_steps": steps, "validation": validation}
    files = {**data, "output_dir": tmp_path / "runs"}
    with pytest.raises(TrainingError, match="NaN or infinite") as error:
        train_whole(tiny_folder, files, tmp_path / "adapter", **how)
    one_line(error)
    assert all(finite(path) for path in checkpoints(tmp_path / "adapter" / "training").values())


FULL = {
    "the system's": OSError(28, "No space left on device"),
    "torch's": RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 640 vs 534\nframe #0"),
    "safetensors'": SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
}


@pytest.mark.parametrize("kind", FULL)
def test_a_full_disk_costs_no_checkpoint_that_stands(tmp_path, tiny_folder, data, whole, monkeypatch, kind):
    honest = PeftModel.save_pretrained

    def save(self, folder, **settings):
        honest(self, folder, **settings)
        if "checkpoint-6" in str(folder):
            raise FULL[kind]

    files = {**data, "output_dir": tmp_path / "runs"}
    with monkeypatch.context() as patched:
        patched.setattr(PeftModel, "save_pretrained", save)
        with pytest.raises(TrainingError, match="checkpoint-6: the checkpoint cannot be written") as error:
            train_whole(tiny_folder, files, tmp_path / "adapter")
    assert "resume=True" in one_line(error)
    work = tmp_path / "adapter" / "training"
    assert max(checkpoints(work)) == 4
    assert not list(work.glob(".*.part"))
    train_whole(tiny_folder, files, tmp_path / "adapter", resume=True)
    assert same_as_undisturbed(tmp_path / "adapter", whole)


@pytest.mark.parametrize(
    "file",
    [
        WEIGHTS,
        "learning-curve.svg",
    ],
)
def test_a_disk_that_is_full_behind_the_last_step_costs_nothing_either(
    tmp_path, tiny_folder, data, whole, monkeypatch, file
):
    honest = shutil.copyfile

    def copy(source, target, **settings):
        if file in str(target):
            raise OSError(28, "No space left on device")
        return honest(source, target, **settings)

    files = {**data, "output_dir": tmp_path / "runs"}
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", copy)
        with pytest.raises(TrainingError, match="No space left on device") as error:
            train_whole(tiny_folder, files, tmp_path / "adapter")
    assert "resume=True" in one_line(error)
    train_whole(tiny_folder, files, tmp_path / "adapter", resume=True)
    assert same_as_undisturbed(tmp_path / "adapter", whole)
    assert len(list((tmp_path / "runs").iterdir())) == 2  # before and after, each scored once


@pytest.mark.parametrize("file", ["report.md", "learning-curve.svg", "run.json", "README.md", "lmtasks.json"])
def test_disk_that_is_full_at_the_last_records_scores_nothing_again(
    tmp_path, tiny_folder, data, whole, monkeypatch, file
):
    """Whatever is written once the adapter has been scored: the run with it, the card, the records."""
    honest = os.replace
    scored = lambda: '"after": "' in (tmp_path / "adapter" / "training" / "state.json").read_text()  # noqa: E731

    def replace(source, target, **settings):
        if Path(target).name == file and scored():
            raise OSError(28, "No space left on device")
        return honest(source, target, **settings)

    files = {**data, "output_dir": tmp_path / "runs"}
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace)
        with pytest.raises(LmtasksError, match="No space left on device") as error:
            train_whole(tiny_folder, files, tmp_path / "adapter")
    one_line(error)
    runs = {path.name: (path / "samples.jsonl").stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    train_whole(tiny_folder, files, tmp_path / "adapter", resume=True)
    assert same_as_undisturbed(tmp_path / "adapter", whole)
    assert runs == {path.name: (path / "samples.jsonl").stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    after = Run(tmp_path / "runs" / max(runs))
    assert after.record.training.after == after.path.name
    assert "## Before and after fine-tuning" in (after.path / "report.md").read_text()


# Checkpoints


def test_the_best_checkpoint_and_the_newest_are_kept_and_hold_the_adapter_alone(tmp_path, tiny_folder, data):
    # The rate of learning rises over all steps, until it spoils what was learned.
    how = {"max_steps": 5, "warmup": 5.0, "learning_rate": 0.5, "validation": 4, "max_grad_norm": 0.0}
    seen: list[set[int]] = []
    work = tmp_path / "training"
    done = learn(ready(tiny_folder, data, **how), work, lambda *_: seen.append(set(checkpoints(work))))
    losses = {entry.step: entry.eval_loss for entry in done.record.history if entry.eval_loss is not None}
    best = min(losses, key=losses.__getitem__)
    assert 1 <= best < 4, losses
    assert set(checkpoints(work)) == {best, 5}
    assert done.record.best_step == best
    assert done.record.validation_loss == losses[best]
    for kept in seen:
        newest = max(kept, default=0)
        scored = {step: loss for step, loss in losses.items() if 1 <= step <= newest}
        assert kept <= {newest, min(scored, key=scored.__getitem__, default=0)}
    base = {name for name, _ in loaded_module(tiny_folder).named_parameters()}
    for path in checkpoints(work).values():
        assert not base & set(load_file(path / WEIGHTS))
        assert all("lora_" in name for name in load_file(path / WEIGHTS))
        assert sum(weight.numel() for weight in load_file(path / WEIGHTS).values()) == 24_576
        assert not list(path.glob("model*"))
        # The optimizer keeps two numbers for each weight.
        assert sum(file.stat().st_size for file in path.iterdir()) < 3 * 4 * 24_576 + 150_000
    files = {**data, "output_dir": tmp_path / "runs"}
    trained = lmtasks.train(make_task(), tmp_path / "adapter", model=tiny_folder, **files, **how, **ON_CPU)
    assert trained.record.training.best_step == best
    assert (trained.path / WEIGHTS).read_bytes() == (work / f"checkpoint-{best}" / WEIGHTS).read_bytes()
    assert (trained.path / WEIGHTS).read_bytes() != (work / "checkpoint-5" / WEIGHTS).read_bytes()


def test_without_validation_the_last_checkpoint_is_kept(tmp_path, tiny_folder, data):
    done = learn(ready(tiny_folder, data, max_steps=3), tmp_path)
    assert done.checkpoint.name == "checkpoint-3"
    assert (done.record.best_step, done.record.validation_loss) == (3, None)
    assert set(checkpoints(tmp_path)) == {3}


# Settings


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "rmsprop", "adafactor", "sgd"])
def test_every_optimizer_moves_weights(tmp_path, tiny_folder, data, optimizer):
    weights = adapter_weights(tiny_folder, data, tmp_path, max_steps=2, warmup=0.0, optimizer=optimizer)
    assert all(weight.isfinite().all() and weight.abs().max() > 0 for weight in weights.values())


@pytest.mark.parametrize(
    ("schedule", "falls"),
    [("cosine", True), ("linear", True), ("constant", False), ("polynomial", True), ("inverse_sqrt", True)],
)
def test_every_schedule_warms_up_and_does_what_it_is_called(tmp_path, tiny_folder, data, schedule, falls):
    how = {"max_steps": 8, "warmup": 2.0, "learning_rate": 0.125, "schedule": schedule, "batch_size": 2}
    done = learn(ready(tiny_folder, data, **how), tmp_path)
    rates = [entry.learning_rate for entry in done.record.history]
    assert len(rates) == 8
    assert rates[0] < rates[1]
    assert max(rates) == 0.125
    assert (rates[-1] < 0.125) == falls
    assert max(float(weight.abs().max()) for name, weight in load_file(done.checkpoint / WEIGHTS).items()) > 0


@pytest.mark.parametrize(
    ("kind", "config", "part"),
    [
        ({"rslora": True, "rank": 4}, {"use_rslora": True, "r": 4, "lora_alpha": 8}, "lora_A"),
        ({"dora": True}, {"use_dora": True}, "lora_magnitude_vector"),
        ({"target_modules": ["q_proj", "up_proj"], "alpha": 3}, {"lora_alpha": 3}, "q_proj"),
    ],
    ids=str,
)
def test_kinds_of_lora_and_layers_are_as_asked_for(tmp_path, tiny_folder, data, kind, config, part):
    done = learn(ready(tiny_folder, data, max_steps=1, **kind), tmp_path)
    written = json.loads((done.checkpoint / "adapter_config.json").read_text())
    assert {name: written[name] for name in config} == config
    weights = load_file(done.checkpoint / WEIGHTS)
    assert any(part in name for name in weights)
    if "target_modules" in kind:
        layers = {name.split(".lora_")[0].rpartition(".")[2] for name in weights}
        assert layers == set(kind["target_modules"])
    assert done.record.trainable_weights == sum(weight.numel() for weight in weights.values())


@pytest.mark.parametrize(("architecture", "layer"), [("llama", "q_proj"), ("gpt2", "c_attn")])
@pytest.mark.parametrize("also", [[], ["there is"]], ids=["alone", "beside one that is there"])
def test_an_unknown_layer_is_told_with_those_that_there_are(tmp_path, data, architecture, layer, also):
    save_tiny_model(tmp_path, architecture)
    with pytest.raises(UsageError, match="no layers named") as error:
        ready(tmp_path, data, target_modules=["q_porj", *([layer] if also else [])])
    said = one_line(error)
    assert "q_porj" in said
    assert layer in said.rpartition("it has")[2]


def test_a_training_that_gets_no_better_ends_early(tmp_path, tiny_folder, data):
    how = {"max_steps": 10, "warmup": 10.0, "learning_rate": 1.0, "validation": 4, "max_grad_norm": 0.0}
    done = learn(ready(tiny_folder, data, early_stopping=2, **how), tmp_path)
    assert done.record.steps == done.record.best_step + 2 < 10
    assert done.record.planned_steps == 10


def test_a_training_that_ended_early_does_not_go_on_when_it_is_resumed(tmp_path, tiny_folder, data):
    how = {"max_steps": 10, "warmup": 10.0, "learning_rate": 1.0, "validation": 4, "max_grad_norm": 0.0}
    planned = ready(tiny_folder, data, early_stopping=2, **how)
    done = learn(planned, tmp_path)
    again = learn(planned, tmp_path)  # as after a kill before the adapter was in its place
    assert again.record.steps == done.record.steps
    assert again.record.history == done.record.history


def test_patience_outlives_an_interruption(tmp_path, tiny_folder, data):
    how = {"max_steps": 10, "warmup": 10.0, "learning_rate": 1.0, "validation": 4, "max_grad_norm": 0.0}
    planned = ready(tiny_folder, data, early_stopping=2, **how)
    whole = learn(planned, tmp_path / "whole").record
    assert whole.steps == whole.best_step + 2 < 10
    with pytest.raises(KeyboardInterrupt):
        learn(planned, tmp_path / "broken", stopping_at("training", whole.best_step + 2))
    again = learn(planned, tmp_path / "broken").record
    assert again.resumed_at > again.best_step
    assert (again.steps, again.best_step) == (whole.steps, whole.best_step)


def test_early_stopping_of_data_too_small_to_validate_is_refused(tmp_path, tiny_folder, data):
    files = {**data, "data": write(tmp_path / "small.jsonl", rows(6)), "output_dir": tmp_path / "runs"}
    with pytest.raises(LmtasksError, match="validation"):
        lmtasks.train(
            make_task(), tmp_path / "adapter", model=tiny_folder, early_stopping=1, max_steps=1, **files, **ON_CPU
        )  # fmt: skip


def test_a_training_ends_in_time(tmp_path, tiny_folder, data):
    planned = ready(tiny_folder, data, epochs=50.0, batch_size=1, max_minutes=1e-4)
    assert 1 <= len(planned.setup.steps) < 100
    record = learn(planned, tmp_path).record
    assert 1 <= record.steps <= len(planned.setup.steps)


def test_steps_passes_and_tokens_are_counted(tmp_path, tiny_folder, data):
    planned = ready(tiny_folder, data, max_steps=6, batch_size=6)
    done = learn(planned, tmp_path).record
    assert (done.steps, done.planned_steps, done.epochs) == (6, 6, 1.5)
    lengths = [len(item.token_ids) for item in planned.setup.train.examples]
    assert sum(lengths) < done.tokens < 2 * sum(lengths)
    assert planned.record["step_tokens"] == done.tokens


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 2**32),
        ("rank", 0),
        ("rank", 1.5),
        ("rank", "many"),
        ("alpha", 0),
        ("alpha", float("inf")),
        ("dropout", -0.1),
        ("dropout", 1.1),
        ("target_modules", []),
        ("rslora", "yes"),
        ("dora", 1),
        ("learning_rate", 0),
        ("learning_rate", -1e-4),
        ("learning_rate", float("nan")),
        ("learning_rate", "3e-4"),
        ("schedule", "cosinus"),
        ("optimizer", "adamx"),
        ("warmup", -1),
        ("weight_decay", -0.1),
        ("max_grad_norm", -1),
        ("epochs", 0),
        ("epochs", float("inf")),
        ("max_steps", 0),
        ("max_minutes", 0),
        ("batch_size", 0),
        ("batch_tokens", 0),
        ("gradient_accumulation", 0),
        ("gradient_checkpointing", "no"),
        ("early_stopping", 0),
        ("max_length", 1),
        ("on_overlong", "drop"),
        ("limit", 0),
        ("eval_limit", 0),
        ("validation", -1),
        ("max_new_tokens", 0),
        ("seed", -1),
        ("device", "tpu"),
        ("dtype", "int8"),
        ("dtype", "float16"),
        ("data", 3),
        ("language", "not a language"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name(name, value):
    with pytest.raises(UsageError, match=f"^{name} "):
        TrainOptions(**{name: value})


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(UsageError, match="epochs and max_steps"):
        TrainOptions(epochs=1, max_steps=1)
    with pytest.raises(UsageError, match="early_stopping needs validation"):
        TrainOptions(early_stopping=1, validation=0)


def test_unknown_names_are_refused_before_a_model_is_loaded(tmp_path, data):
    for changes, told in (({"learning_rat": 1}, "learning_rate"), ({"prompt": "plane"}, "plain")):
        with pytest.raises(UnknownNameError, match=f"Did you mean {told}"):
            lmtasks.train(make_task(), tmp_path / "adapter", model=tmp_path / "nowhere", **data, **changes)


def test_an_unknown_tracker_is_refused(tiny_folder, data):
    with pytest.raises(UsageError, match="report_to nonsense"):
        ready(tiny_folder, data, report_to="nonsense")


# What comes of it


def test_the_record_says_what_was_learned_on_what_and_with_which_result(whole, tiny_folder, data):
    record = json.loads((whole.path / "lmtasks.json").read_text())
    assert validate(AdapterRecord, record) == whole.record
    assert record["weights_sha256"] == hashlib.sha256((whole.path / WEIGHTS).read_bytes()).hexdigest()
    loaded = load(str(tiny_folder), trust_remote_code=False, on_progress=lambda *_: None, **ON_CPU)
    assert record["base"]["revision"] == loaded.info.revision
    renderer = Renderer(make_task(), loaded.tokenizer)
    assert record["prompt"] == {
        "name": "plain",
        "form": "chat",
        "sha256": renderer.fingerprint(),
        "chat_template": {"kwargs": {}, "date": None},
    }
    plan = plan_training(make_task(), None, TrainOptions(**data, validation=4))
    for name, part in (("data", plan.data), ("evaluation", plan.evaluation)):
        assert record[name]["sha256"] == part.sha256
        file = data["data" if name == "data" else "eval_data"]
        assert record[name]["file_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (record["task"]["name"], record["task"]["version"]) == ("first", 3)
    assert (record["training"]["examples"], record["training"]["validation_examples"]) == (20, 4)
    losses = dict(validations(whole.record))
    assert list(losses) == list(range(0, 21, 2))
    assert losses[record["training"]["best_step"]] == min(losses.values()) < losses[0]


def test_the_record_has_the_scores_of_the_runs_before_and_after(whole):
    record = whole.record
    assert (record.before, record.after) == (whole.before.path.name, whole.after.path.name)
    assert [score.name for score in record.scores] == ["exact_match", "chrF"]
    for score, before, after in zip(record.scores, whole.before.scores, whole.after.scores, strict=True):
        assert (score.baseline, score.candidate) == (pytest.approx(before.value), pytest.approx(after.value))
    assert record.scores[1].baseline != record.scores[1].candidate
    assert record.verdict
    assert whole.before.record.adapter is None
    assert whole.after.record.adapter.sha256 == record.weights_sha256
    assert whole.after.record.training == record


def test_the_readme_is_a_model_card_with_the_scores(whole):
    from huggingface_hub import ModelCard

    card = ModelCard((whole.path / "README.md").read_text())
    assert card.data.library_name == "peft"
    assert card.data.base_model == whole.record.base.name
    told = {(result.metric_type, result.metric_value) for result in card.data.eval_results}
    assert told == {(score.name, round(score.candidate, 4)) for score in whole.record.scores}
    assert {result.dataset_name for result in card.data.eval_results} == {"test.jsonl"}
    for score in whole.record.scores:
        assert f"| {score.name} | {score.baseline:.2f} | {score.candidate:.2f} |" in card.text
    assert whole.record.verdict in card.text


def test_bare_peft_writes_what_lmtasks_wrote_with_the_adapter(whole, tiny_folder, data):
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    base = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, whole.path).eval()
    renderer = Renderer(make_task(), tokenizer)
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    for sample in whole.after.samples:
        prompt = list(renderer.render(Example(id=sample.id, inputs=sample.inputs)).token_ids)
        with torch.no_grad():
            output = model.generate(torch.tensor([prompt]), max_new_tokens=4, do_sample=False, eos_token_id=ends)
        assert tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True) == sample.completion
    completions = [[sample.completion for sample in run.samples] for run in (whole.before, whole.after)]
    assert completions[0] != completions[1]


def test_a_later_run_with_the_adapter_writes_the_same(tmp_path, whole, tiny_folder, data):
    run = lmtasks.run(
        make_task(), model=tiny_folder, data=data["eval_data"], adapter=whole.path, output_dir=tmp_path, **ON_CPU
    )  # fmt: skip
    assert [sample.completion for sample in run.samples] == [sample.completion for sample in whole.after.samples]


def test_without_references_to_score_there_is_an_adapter_and_nothing_to_compare(tmp_path, tiny_folder, data):
    bare = [{"id": row["id"], "text": row["text"]} for row in rows(2, 200)]
    files = {**data, "eval_data": write(tmp_path / "bare.jsonl", bare), "output_dir": tmp_path / "runs"}
    done = lmtasks.train(make_task(), tmp_path / "adapter", model=tiny_folder, max_steps=1, **files, **ON_CPU)
    assert done.comparison is None
    assert done.record.scores == ()
    assert "no references" in (done.path / "README.md").read_text()
    assert {path.name for path in done.path.iterdir()} == FINISHED
