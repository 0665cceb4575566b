"""Settings that are refused."""

from __future__ import annotations

import pytest
from training_setup import make_task, ready

import lmtasks
from lmtasks.errors import UnknownNameError, UsageError
from lmtasks.options import TrainOptions


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
