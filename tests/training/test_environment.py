"""Environment variables that a training sets for accelerate and trackers: restored when it ends or fails."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from training_setup import learn, ready

from lmtasks.errors import TrainingError
from lmtasks.training.common import trainer

VARIABLES = ("ACCELERATE_MIXED_PRECISION", "TENSORBOARD_LOGGING_DIR")


def variables() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in VARIABLES}


def set_or_delete(monkeypatch, value: str | None) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)


@pytest.mark.parametrize("before", [None, "bf16"])
def test_training_restores_the_environment(tmp_path, tiny_folder, data, monkeypatch, before):
    planned = ready(tiny_folder, data, max_steps=1)
    set_or_delete(monkeypatch, before)
    learn(planned, tmp_path)
    assert set(variables().values()) == {before}


@pytest.mark.parametrize("before", [None, "bf16"])
def test_failed_training_restores_the_environment(tmp_path, tiny_folder, data, monkeypatch, before):
    seen = []

    def fail(*_, **__):
        seen.append(variables())
        raise TrainingError("failed")

    planned = ready(tiny_folder, data, max_steps=1)
    options = replace(planned.plan.options, report_to=("tensorboard",))
    planned = replace(planned, plan=replace(planned.plan, options=options))
    set_or_delete(monkeypatch, before)
    # The tracker itself need not be installed.
    monkeypatch.setattr(trainer, "training_arguments", lambda *_, **__: None)
    monkeypatch.setattr(trainer, "PlannedTrainer", fail)
    with pytest.raises(TrainingError, match="failed"):
        learn(planned, tmp_path / "adapter" / "training")
    # The dtype that was chosen wins, and a user's folder for TensorBoard.
    folder = os.path.join(options.output_dir, "tensorboard", "adapter")
    assert seen == [dict(zip(VARIABLES, ("no", before or folder), strict=True))]
    assert set(variables().values()) == {before}
