from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import Call, one_line

import lmtasks
from lmtasks.testing import save_tiny_model

ON_CPU = ("--device", "cpu", "--dtype", "float32")
DATA = {
    "summarization": [
        {"id": str(number), "document": f"{number} ferry at nine", "summary": ("nine", "six", "one")[number % 3]}
        for number in range(12)
    ],
    "qa": [
        {
            "id": str(number),
            "context": f"{number} ferry",
            "question": "When does it leave?",
            "answers": [f"at {number}"],
        }
        for number in range(12)
    ],
}


@dataclass(frozen=True)
class Trained:
    model: Path
    summarization: Path
    qa: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A model with adapters of two tasks."""
    folder = tmp_path_factory.mktemp("trained")
    save_tiny_model(folder / "tiny")
    for task, rows in DATA.items():
        for name, part in (("train", rows[:9]), ("test", rows[9:])):
            file = folder / f"{task}.{name}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in part))
        lmtasks.train(
            task,
            folder / task,
            model=folder / "tiny",
            data=folder / f"{task}.train.jsonl",
            eval_data=folder / f"{task}.test.jsonl",
            output_dir=folder / "runs",
            max_steps=3,
            learning_rate=0.05,
            max_new_tokens=4,
            device="cpu",
            dtype="float32",
        )
    return Trained(folder / "tiny", folder / "summarization", folder / "qa")


def test_run_command_takes_an_adapter_for_each_task(call: Call, trained: Trained):
    how = ("--model", trained.model, *ON_CPU, "--limit", 3, "--max-new-tokens", 4, "--json")
    named = (f"summarization={trained.summarization}", f"qa={trained.qa}", "titles")
    together = json.loads(call("run", *named, *how).out)
    assert [(run["adapter"] or {}).get("task") for run in together] == ["summarization", "qa", None]
    for task, run in zip(("summarization", "qa", "titles"), together, strict=True):
        adapter = () if run["adapter"] is None else ("--adapter", run["adapter"]["source"])
        alone = json.loads(call("run", task, *adapter, *how).out)
        assert (alone["scores"], alone["adapter"]) == (run["scores"], run["adapter"])


def test_run_command_prints_its_adapter(call: Call, trained: Trained):
    how = ("--model", trained.model, *ON_CPU, "--limit", 1, "--max-new-tokens", 2)
    said = call("run", f"qa={trained.qa}", *how).out
    assert said.startswith(f"qa with {trained.model} and {trained.qa}: 1 example of ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "qa", "summarization", "--adapter", "one"), "--adapter is for a single task: write TASK=ADAPTER"),
        (("run", "qa=one", "--adapter", "two"), "the adapter is given twice: one and --adapter two"),
        (("compare", "qa", "summarization", "--adapter", "one"), "lmtasks compare TASK --adapter ADAPTER"),
        (("compare", "runs/a", "runs/b", "--model", "tiny"), "--model needs --adapter: it is an option of runs"),
    ],
)
def test_run_command_refuses_adapter_named_twice(call: Call, arguments, told):
    outcome = call(*arguments)
    assert outcome.code == 2
    assert told in outcome.err.splitlines()[-1]
    assert outcome.err.startswith("Usage: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "qa=nowhere"),
        ("run", "qa", "--adapter", "nowhere"),
        ("ask", "summarization", "a", "--adapter", "nowhere"),
        ("adapters", "show", "nowhere"),
    ],
)
def test_missing_adapter_is_one_line_before_model_is_loaded(call: Call, monkeypatch, arguments):
    monkeypatch.setattr("lmtasks.api.running.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    outcome = call(*arguments)
    assert outcome.code != 0
    assert "nowhere: no such adapter folder" in one_line(outcome)


def test_adapter_of_another_base_is_one_line(call: Call, trained: Trained, tmp_path):
    save_tiny_model(tmp_path / "gpt", "gpt2")
    outcome = call("run", f"qa={trained.qa}", "--model", tmp_path / "gpt", *ON_CPU, "--limit", 1)
    assert outcome.code == 1
    assert outcome.out == ""
    line = outcome.err.splitlines()[-1]
    assert line.startswith(f"lmtasks: {trained.qa}: this adapter was trained on {trained.model}")
    assert not (tmp_path / "runs").exists()


def test_ask_and_compare_commands_take_an_adapter(call: Call, trained: Trained):
    how = ("--model", trained.model, *ON_CPU)
    text = ("ask", "summarization", "0 ferry at nine", *how, "--max-new-tokens", 4)
    assert call(*text).out != call(*text, "--adapter", trained.summarization).out
    data = trained.model.parent / "summarization.test.jsonl"
    compared = json.loads(
        call("compare", "summarization", "--adapter", trained.summarization, "--data", data, *how, "--json").out
    )
    assert compared["comparisons"][0]["n"] == 3
    said = call("compare", "summarization", "--adapter", trained.summarization, "--data", data, *how).out
    assert f"{trained.model}, {trained.summarization}\n3 examples of {data}" in said


def test_adapters_show_prints_task_base_training_and_scores(call: Call, trained: Trained):
    said = call("adapters", "show", trained.qa).out
    record = json.loads((trained.qa / "lmtasks.json").read_text())
    for part in (
        f"weights  sha256:{record['weights_sha256']}",
        "LoRA     rank 16, alpha 32, on ",
        f"base     {trained.model}, {record['base']['revision']}",
        "task     qa, version ",
        "9 examples of ",
        "in 3 steps",
        "p corrected",
        record["verdict"],
    ):
        assert part in said
    assert json.loads(call("adapters", "show", trained.qa, "--json").out)["lmtasks"] == record
    (trained.qa / "lmtasks.json").rename(trained.qa / "aside")
    try:
        assert "trained  outside lmtasks" in call("adapters", "show", trained.qa).out
    finally:
        (trained.qa / "aside").rename(trained.qa / "lmtasks.json")


def test_adapters_merge_writes_equivalent_model(call: Call, trained: Trained):
    outcome = call("adapters", "merge", trained.qa, "-o", "merged")
    assert (outcome.code, outcome.out) == (0, "merged\n")
    question = ("ask", "qa", "--input", "context=1 ferry", "--input", "question=When?", *ON_CPU, "--max-new-tokens", 6)
    merged = call(*question, "--model", "merged").out
    assert merged == call(*question, "--model", trained.model, "--adapter", trained.qa).out
    assert "is there already" in one_line(call("adapters", "merge", trained.qa, "-o", "merged"))
