"""Settings of a training that no machine can do: refused in one line, at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmtasks.api import PlannedTraining, plan_train
from lmtasks.errors import UsageError
from lmtasks.options import TrainOptions
from lmtasks.training.common.steps import MAX_EXAMPLES, MAX_STEPS, iterate_steps, plan_steps

SECONDS = 60
"""Far less than a plan without bounds takes."""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    for name, start, count in (("train", 0, 24), ("test", 100, 6)):
        rows = [
            {"id": f"{name}{number}", "document": f"{number} ferry leaves", "summary": f"ferry {number}"}
            for number in range(start, start + count)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def planned(work: Path, tiny: Path, **settings: object) -> PlannedTraining:
    files = {"data": work / "train.jsonl", "eval_data": work / "test.jsonl"}
    return plan_train("summarization", model=tiny, device="cpu", dtype="float32", validation=0, **files, **settings)


def command_refused(work: Path, tiny: Path, *more: str) -> str:
    """Return the line in which a training is refused on the command line."""
    command = [sys.executable, "-m", "lmtasks", "train", "summarization", "--data", "train.jsonl", "--plan"]
    done = subprocess.run(
        [*command, "--eval-data", "test.jsonl", "--model", str(tiny), *more],
        cwd=work,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 2, done.stderr
    assert not done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 1e300}, "at most 10,000,000 steps"),
        ({"epochs": 1e308, "batch_tokens": 100}, "at most 10,000,000 steps"),
        ({"epochs": 1e308, "batch_size": 2**60}, "at most 10,000,000 steps"),
        ({"max_steps": MAX_STEPS + 1}, "at most 10,000,000 steps"),
        ({"max_steps": 1, "batch_size": MAX_EXAMPLES + 1}, "at most 100,000,000 examples"),
        ({"max_steps": 1, "batch_tokens": 2**60}, "at most 100,000,000 examples"),
        ({"max_steps": 9, "batch_size": 2**60, "max_minutes": 1}, "at most 100,000,000 examples"),
    ],
    ids=str,
)
def test_plan_train_refuses_too_many_steps_or_examples(work, tiny_folder, settings, message):
    with pytest.raises(UsageError) as error:
        planned(work, tiny_folder, **settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_train_command_refuses_too_many_steps_in_one_line(work, tiny_folder):
    assert "at most 10,000,000 steps" in command_refused(work, tiny_folder, "--epochs", "1e300")


@pytest.mark.parametrize("epochs", [1e6, 1e300])
def test_plan_train_plans_only_the_steps_that_time_allows(work, tiny_folder, epochs):
    assert 1 <= len(planned(work, tiny_folder, epochs=epochs, max_minutes=0.01).setup.steps) < 10_000


def test_plan_train_refuses_more_time_than_can_be_planned_for(work, tiny_folder, monkeypatch):
    monkeypatch.setattr("lmtasks.training.common.steps.MAX_STEPS", 100)
    with pytest.raises(UsageError, match="at most 100 steps"):
        planned(work, tiny_folder, epochs=1e300, max_minutes=1e300)


@pytest.mark.parametrize("batch_tokens", [None, 9])
def test_iterate_steps_begins_with_the_same_steps_for_more_epochs(batch_tokens):
    settings = {"batch_size": 4, "batch_tokens": batch_tokens, "max_steps": None, "seed": 3}
    lengths = [1, 4, 2, 5, 3, 3, 1]
    steps = plan_steps(lengths, epochs=9.0, **settings)
    endless = iterate_steps(lengths, epochs=1e308, **settings)
    assert [next(endless) for _ in steps[:-1]] == steps[:-1]


def test_plan_steps_refuses_too_many_steps_before_planning_any():
    settings = {"batch_size": 1, "batch_tokens": None, "max_steps": None, "seed": 0}
    with pytest.raises(UsageError, match="fewer epochs, max_steps or max_minutes"):
        plan_steps([5], epochs=MAX_STEPS + 1.0, **settings)


@pytest.mark.parametrize(
    ("settings", "largest"),
    [
        ({}, 96),
        ({"target_modules": ["q_proj"]}, 48),
        ({"target_modules": ["q_proj", "down_proj"]}, 96),
    ],
    ids=str,
)
def test_plan_train_refuses_rank_beyond_all_layers(work, tiny_folder, settings, largest):
    with pytest.raises(UsageError, match=f"^rank must be at most {largest}, .* not {largest + 1}$"):
        planned(work, tiny_folder, rank=largest + 1, max_steps=1, **settings)
    assert planned(work, tiny_folder, rank=largest, max_steps=1, **settings).setup.trainable_weights > 0


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "message"), [("100000000", "at most 96"), (str(10**29), "below 2**63")])
def test_train_command_refuses_impossible_rank_in_one_line(work, tiny_folder, rank, message):
    line = command_refused(work, tiny_folder, "--rank", rank)
    assert "rank" in line and message in line


def test_settings_file_refuses_too_large_number(work, tiny_folder):
    (work / "settings.yaml").write_text(f"max_steps: {'9' * 30}\n")
    line = command_refused(work, tiny_folder, "--config", "settings.yaml")
    assert "settings.yaml" in line and "max_steps must be a whole number of at least 1 and below 2**63" in line


@pytest.mark.parametrize("value", [2**63, 10**5000, -(10**5000)], ids=["2**63", "10**5000", "-10**5000"])
@pytest.mark.parametrize(
    "name",
    [
        "limit",
        "eval_limit",
        "max_new_tokens",
        "validation",
        "rank",
        "max_steps",
        "batch_size",
        "batch_tokens",
        "gradient_accumulation",
        "early_stopping",
        "max_length",
        "seed",
    ],
)
def test_train_options_refuse_too_large_whole_number_by_name(name, value):
    with pytest.raises(UsageError, match=f"^{name} must be a whole number of at least .* below 2"):
        TrainOptions(**{name: value})


@pytest.mark.parametrize("name", ["alpha", "learning_rate", "epochs", "max_minutes", "dropout", "warmup"])
def test_train_options_refuse_number_beyond_floats_by_name(name):
    for value in (10**400, 10**5000, -(10**5000)):
        with pytest.raises(UsageError, match=f"^{name} must be a number of"):
            TrainOptions(**{name: value})


def test_plan_train_gives_a_step_no_more_parts_than_examples(work, tiny_folder):
    assert planned(work, tiny_folder, gradient_accumulation=2**62, batch_size=4).setup.data.per_step == 4
