"""Divergence, full disks, and which checkpoints are kept."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from training_setup import (
    ON_CPU,
    WEIGHTS,
    learn,
    loaded_module,
    make_task,
    one_line,
    ready,
    same_as_undisturbed,
    train_whole,
)

import lmtasks
from lmtasks import Run
from lmtasks.errors import LmtasksError, TrainingError
from lmtasks.training.common import monitor, packing
from lmtasks.training.common.checkpoints import checkpoints
from lmtasks.training.common.micro_batches import TIMED_MICRO_BATCHES
from lmtasks.training.lora import prepare

pytestmark = pytest.mark.slow  # whole trainings, with their scores before and after


def finite(folder: Path) -> bool:
    return all(bool(weight.isfinite().all()) for weight in load_file(folder / WEIGHTS).values())


@pytest.mark.parametrize("validation", [0, 4])
def test_diverged_training_fails_and_keeps_a_good_checkpoint(tmp_path, tiny_folder, data, monkeypatch, validation):
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
def test_huge_learning_rate_never_gives_an_adapter_with_nan(tmp_path, tiny_folder, data, steps, validation):
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
def test_full_disk_keeps_earlier_checkpoints(tmp_path, tiny_folder, data, whole, monkeypatch, kind):
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
def test_full_disk_after_the_last_step_loses_nothing(tmp_path, tiny_folder, data, whole, monkeypatch, file):
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
def test_full_disk_at_the_last_records_repeats_no_scoring(tmp_path, tiny_folder, data, whole, monkeypatch, file):
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


def test_best_and_newest_checkpoints_are_kept(tmp_path, tiny_folder, data):
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


def test_last_checkpoint_is_kept_without_validation(tmp_path, tiny_folder, data):
    done = learn(ready(tiny_folder, data, max_steps=3), tmp_path)
    assert done.checkpoint.name == "checkpoint-3"
    assert (done.record.best_step, done.record.validation_loss) == (3, None)
    assert set(checkpoints(tmp_path)) == {3}
