"""Early stopping and limits of time."""

from __future__ import annotations

import pytest
from training_setup import ON_CPU, learn, make_task, ready, rows, stopping_at, write

import lmtasks
from lmtasks.errors import LmtasksError


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
    assert planned.estimate.step_tokens == done.tokens
