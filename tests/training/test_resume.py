"""Interrupted trainings that resume."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import filelock
import pytest
from safetensors.torch import load_file, save_file
from training_setup import (
    ON_CPU,
    WEIGHTS,
    make_task,
    one_line,
    ready,
    same_as_undisturbed,
    stopping_at,
    train_whole,
)

import lmtasks
from lmtasks.errors import DataError, PathError, TrainingError
from lmtasks.training.common import monitor
from lmtasks.training.common.checkpoints import checkpoints
from lmtasks.training.lora import conduct, prepare
from lmtasks.training.lora import train as training

pytestmark = pytest.mark.slow  # trainings that are interrupted and resumed

KILLED = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import gc
import torch
torch.set_num_threads(1)
import training_setup
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
            training_setup.train_whole(
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


def test_resume_after_repeated_kills_gives_the_undisturbed_adapter(tmp_path, tiny_folder, data, whole):
    files = {name: str(path) for name, path in {**data, "output_dir": tmp_path / "runs"}.items()}
    adapter = tmp_path / "adapter"
    code = KILLED.format(
        tests=str(Path(__file__).parent), adapter=str(adapter), model=str(tiny_folder), data=files
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("killed at") == 6
    assert same_as_undisturbed(adapter, whole)


@pytest.mark.parametrize(("what", "step", "resumed"), [("training", 0, None), ("training", 7, 6), ("training", 20, 18)])
def test_resume_continues_from_the_last_checkpoint(tmp_path, tiny_folder, data, whole, what, step, resumed):
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
def test_resume_after_the_last_step(tmp_path, tiny_folder, data, whole, monkeypatch, step):
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
def test_resume_refuses_other_settings(tiny_folder, data, unfinished, change, told):
    before = contents(unfinished)
    files = {**data, "output_dir": unfinished / "runs"}
    with pytest.raises(TrainingError, match="was begun with other settings") as error:
        train_whole(tiny_folder, files, unfinished / "adapter", resume=True, **change)
    said = one_line(error)
    assert all(words in said for words in told)
    assert contents(unfinished) == before


def test_train_refuses_a_folder_with_an_unfinished_training(tiny_folder, data, unfinished):
    before = contents(unfinished)
    with pytest.raises(TrainingError, match="has not finished; resume it with resume=True"):
        train_whole(tiny_folder, data, unfinished / "adapter")
    assert contents(unfinished) == before


@pytest.mark.parametrize("file", [WEIGHTS, "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"])
def test_resume_names_a_damaged_checkpoint(tmp_path, tiny_folder, data, unfinished, file):
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
def test_resume_names_checkpoint_state_of_wrong_types(tmp_path, tiny_folder, data, unfinished, name, value, told):
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
def test_resume_refuses_a_checkpoint_without_a_file(tmp_path, tiny_folder, data, unfinished, file):
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
def test_resume_refuses_a_checkpoint_of_another_step_or_training(tmp_path, tiny_folder, data, unfinished, change, told):
    shutil.copytree(unfinished, tmp_path / "copy")
    file = tmp_path / "copy" / "adapter" / "training" / "checkpoint-4" / "trainer_state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert told in resume_refused(tmp_path, tiny_folder, data)


def test_resume_refuses_a_checkpoint_behind_the_last_step(tmp_path, tiny_folder, data, unfinished):
    shutil.copytree(unfinished, tmp_path / "copy")
    folder = tmp_path / "copy" / "adapter" / "training"
    (folder / "checkpoint-4").rename(folder / "checkpoint-40")
    file = folder / "checkpoint-40" / "trainer_state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"global_step": 40}))
    assert "only 20 steps are planned" in resume_refused(tmp_path, tiny_folder, data)


def test_resume_refuses_a_checkpoint_without_one_of_its_weights(tmp_path, tiny_folder, data, unfinished):
    shutil.copytree(unfinished, tmp_path / "copy")
    file = tmp_path / "copy" / "adapter" / "training" / "checkpoint-4" / WEIGHTS
    weights = load_file(file)
    name = sorted(weights)[0]
    del weights[name]
    save_file(weights, file)
    assert f"{name} is expected in shape" in resume_refused(tmp_path, tiny_folder, data)


@pytest.mark.parametrize("name", ["checkpoint-²", "checkpoint-007", "checkpoint-0"])
def test_checkpoints_ignores_other_folders(tmp_path, name):
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
def test_resume_names_a_damaged_state(tmp_path, monkeypatch, change, told):
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
def test_train_refuses_an_impossible_output_folder(tmp_path, output):
    with pytest.raises(PathError, match="adapter folder") as error:
        lmtasks.train(make_task(), output, model="none")
    one_line(error)


def test_resume_without_checkpoints_starts_again(tmp_path, tiny_folder, data, unfinished, whole):
    shutil.copytree(unfinished, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "adapter" / "training" / "checkpoint-4")
    files = {**data, "output_dir": tmp_path / "copy" / "runs"}
    train_whole(tiny_folder, files, tmp_path / "copy" / "adapter", resume=True)
    assert same_as_undisturbed(tmp_path / "copy" / "adapter", whole)


@pytest.mark.parametrize("faster", [0.5, 2.0])
def test_resume_of_a_time_limited_training_keeps_its_steps(tmp_path, tiny_folder, data, monkeypatch, faster):
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
            on_plan=lambda estimate: plans.append(estimate.steps), **how,
        )  # fmt: skip
    done = lmtasks.train(make_task(), tmp_path / "adapter", model=tiny_folder, resume=True, **how)
    record = done.record.training
    assert record.steps == record.planned_steps == plans[0] == 12
    rates = [entry.learning_rate for entry in record.history][1:]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("resume", [False, True])
def test_train_refuses_a_folder_with_a_finished_adapter(tiny_folder, data, whole, resume):
    before = contents(whole.path)
    with pytest.raises(TrainingError, match="holds a finished adapter"):
        train_whole(tiny_folder, data, whole.path, resume=resume)
    assert contents(whole.path) == before


@pytest.mark.parametrize("resume", [False, True])
def test_train_refuses_a_folder_with_other_files(tmp_path, tiny_folder, data, resume):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("Years of work")
    with pytest.raises(TrainingError, match="is not empty and no adapter of lmtasks"):
        train_whole(tiny_folder, data, tmp_path / "thesis", resume=resume)
    assert contents(tmp_path) == {"thesis/chapter.txt": b"Years of work"}
    with pytest.raises(TrainingError, match="a file; name a folder"):
        train_whole(tiny_folder, data, tmp_path / "thesis" / "chapter.txt", resume=resume)


def test_resume_needs_an_unfinished_training(tmp_path, tiny_folder, data):
    with pytest.raises(TrainingError, match="nothing to resume"):
        train_whole(tiny_folder, data, tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()


def test_train_refuses_a_folder_in_use(tmp_path, tiny_folder, data):
    (tmp_path / "adapter" / "training").mkdir(parents=True)
    with filelock.FileLock(tmp_path / "adapter" / "training" / ".lock"):
        with pytest.raises(TrainingError, match="another process trains in this folder"):
            train_whole(tiny_folder, data, tmp_path / "adapter")
        assert contents(tmp_path) == {"adapter/training/.lock": b""}


def test_refused_training_leaves_no_folder(tmp_path, tiny_folder, data):
    with pytest.raises(DataError):
        train_whole(tiny_folder, {**data, "eval_data": data["data"]}, tmp_path / "adapter")
    assert not any(tmp_path.iterdir())
