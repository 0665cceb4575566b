"""Where run folders are made, what they are called, and who may continue one."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock
import pytest

import lmtasks
from lmtasks import Example, Field, RunOptions, Task, api
from lmtasks.backends import Completion, Request
from lmtasks.errors import LmtasksError, PathError, RunError
from lmtasks.testing import FakeModel, tiny_model

EXAMPLES = [
    Example(id=f"e{number}", inputs={"text": f"number {number}"}, references=(f"answer {number}",))
    for number in range(4)
]


def make_task(**changes: Any) -> Task:
    settings = {
        "name": "echo",
        "version": 1,
        "summary": "Echo.",
        "fields": {"text": Field()},
        "prompts": {"plain": "Say $text"},
        "datasets": {"demo": lambda split: iter(EXAMPLES if split == "test" else [])},
        "metrics": ("exact_match",),
    }
    return Task(**(settings | changes))


def answer(prompt: str) -> str:
    return f" answer {prompt.split()[-1]}"


def named(name: str) -> FakeModel:
    """Return a model of this name."""
    model = FakeModel(answer)
    object.__setattr__(model.info, "name", name)
    return model


def refused(error: type[LmtasksError], output_dir: str | Path, *problem: object) -> None:
    model = FakeModel(answer)
    with pytest.raises(error) as caught:
        lmtasks.run(make_task(), model=model, output_dir=output_dir)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert "\0" not in message
    for thing in problem:
        assert str(thing) in message
    assert model.prompts == []


@pytest.mark.parametrize(
    ("model", "part"),
    [
        ("Qwen2.5-0.5B", "Qwen2.5-0.5B"),
        ("org/model", "model"),
        ("模型", "模型"),
        ("m" * 300, "m" * 100),
        ("模" * 300, "模" * 33),
        ("a" + "é" * 300, "a" + "é" * 49),
        ("🦜" * 200, "🦜" * 25),
        ('a:b*c?d<e>f|g\\h"i', "a-b-c-d-e-f-g-h-i"),
        ("a\x1b]0;owned\x07b\nc", "a-]0;owned-b-c"),
        ("right\u202eleft", "right-left"),
        ("nul\0", "nul-"),
        ("ends. . ", "ends"),
        (".hidden", "hidden"),
        ("bad\udcff", "bad-"),
        ("x" * 99 + ". y", "x" * 99),
    ],
)
def test_run_folder_name_fits_every_file_system(tmp_path: Path, model: str, part: str):
    run = lmtasks.run(make_task(), model=named(model), output_dir=tmp_path)
    assert re.fullmatch(rf"\d{{8}}-\d{{6}}-echo-{re.escape(part)}", run.path.name)
    assert len(os.fsencode(run.path.name)) < 250
    # A second run of the same second is distinguished within that length.
    again = lmtasks.run(make_task(), model=named(model), output_dir=tmp_path)
    assert again.path != run.path
    assert len(os.fsencode(again.path.name)) <= 255
    assert again.record.model.name == json.loads(json.dumps(model))


def test_run_folder_name_keeps_parts_of_long_task_and_model(tmp_path: Path):
    outputs = tmp_path / ("输" * 80 + ".txt")
    outputs.write_text("x\n" * 4)
    path = lmtasks.score(make_task(name="t" * 200), predictions=outputs, output_dir=tmp_path / "runs", resamples=0).path
    assert path
    assert path.name.endswith("t" * 100 + "-" + "输" * 33)


def test_output_folder_may_begin_with_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert lmtasks.run(make_task(), model=FakeModel(answer), output_dir="~/mine").path.parent == tmp_path / "mine"
    outputs = tmp_path / "outputs.txt"
    outputs.write_text("x\n" * 4)
    scored = lmtasks.score(make_task(), predictions=outputs, output_dir="~/mine", resamples=0)
    assert scored.path and scored.path.parent == tmp_path / "mine"
    assert lmtasks.score(f"~/mine/{scored.path.name}").path == scored.path
    [compared] = lmtasks.compare(f"~/mine/{scored.path.name}", f"~/mine/{scored.path.name}", metrics=["exact_match"])
    assert compared.n == 4


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("x" * 256, "256 bytes"),
        ("é" * 128, "256 bytes"),
        ("~nosuchuser/runs", "~nosuchuser"),
        ("a\0b", "NUL"),
        ("", "empty"),
    ],
)
def test_impossible_output_folder_is_refused_before_generating(name: str, problem: str):
    refused(PathError, name, "output folder", problem)


@pytest.mark.parametrize("name", ["x" * 256, "~nosuchuser/run", "a\0b"])
def test_impossible_run_folder_is_refused(tmp_path: Path, name: str):
    run = lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path)
    for call in (lambda: lmtasks.compare(run.path, name), lambda: lmtasks.score(name)):
        with pytest.raises(LmtasksError) as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1


def test_output_folder_that_is_a_file_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    refused(RunError, tmp_path / "file", tmp_path / "file", "output_dir")
    refused(RunError, tmp_path / "file" / "below", "output_dir")
    (tmp_path / "file").unlink()
    (tmp_path / "file").symlink_to(tmp_path / "nowhere")
    refused(RunError, tmp_path / "file", "output_dir")


def unfinished(tmp_path: Path) -> Path:
    def breaks_off(prompt: str) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lmtasks.run(make_task(), model=FakeModel(breaks_off), output_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    return path


def test_resume_leaves_locked_run_to_its_process(tmp_path: Path):
    path = unfinished(tmp_path)
    with filelock.FileLock(path / ".lock"):
        run = lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path)
    assert run.path != path
    assert lmtasks.run(make_task(), model=FakeModel(answer), output_dir=tmp_path).path == path


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "Permission denied"), OSError(errno.EROFS, "Read-only file system")]
)
def test_resume_of_read_only_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError):
    path = unfinished(tmp_path)
    honest = os.open

    def refuse(file: Any, flags: int, *rest: Any, **settings: Any) -> int:
        if str(file) == str(path / ".lock"):
            raise error
        return honest(file, flags, *rest, **settings)

    monkeypatch.setattr(os, "open", refuse)
    refused(RunError, tmp_path, path, "cannot be resumed", error.strerror, "output_dir")
    assert list(tmp_path.iterdir()) == [path]


def test_file_system_without_locks_is_refused_and_left_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    refused(RunError, tmp_path, "does not appear to support flock", "output_dir")
    assert list(tmp_path.iterdir()) == []


class Listening(FakeModel):
    """A model that keeps how it was asked."""

    def __init__(self) -> None:
        super().__init__(answer)
        self.asked: list[tuple[int, int | None, list[str]]] = []

    def generate(
        self, requests: Sequence[Request], *, seed: int, batch_size: int | None = None
    ) -> Iterator[list[tuple[int, Completion]]]:
        self.asked.append((seed, batch_size, [request.key for request in requests]))
        return super().generate(requests, seed=seed, batch_size=batch_size)


def test_run_plans_uses_seed_and_batch_size_of_each_plan(tmp_path: Path):
    options = [
        RunOptions(seed=1, batch_size=2, output_dir=tmp_path, limit=1),
        RunOptions(seed=2, batch_size=2, output_dir=tmp_path, limit=2),
        RunOptions(seed=1, batch_size=None, output_dir=tmp_path, limit=3),
        RunOptions(seed=1, batch_size=2, output_dir=tmp_path, limit=4),
    ]
    model, heard = Listening(), []
    plans = [api.running.plan_run(make_task(), each) for each in options]
    runs = api.running.run_planned(plans, model, on_progress=lambda *what: heard.append(what[1:]))
    assert model.asked == [
        (1, 2, ["e0", "e0", "e1", "e2", "e3"]),
        (2, 2, ["e0", "e1"]),
        (1, None, ["e0", "e1", "e2"]),
    ]
    assert [(run.record.seed, run.record.batch_size) for run in runs] == [(1, 2), (2, 2), (1, None), (1, 2)]
    assert [len(run.samples) for run in runs] == [1, 2, 3, 4]
    assert [done for done, total in heard] == list(range(11))
    assert all(run.scores[0].value == 100 for run in runs)


def test_run_plans_samples_as_each_plan_does_alone(tmp_path: Path):
    model = tiny_model("llama", chat=False)

    def plan(seed: int, folder: str) -> Any:
        options = RunOptions(seed=seed, temperature=1.0, max_new_tokens=8, output_dir=tmp_path / folder)
        return api.running.plan_run(make_task(), options)

    together = api.running.run_planned([plan(3, "together"), plan(4, "together")], model)
    texts = [[sample.completion for sample in run.samples] for run in together]
    assert texts[0] != texts[1]
    for seed, said in zip((3, 4), texts, strict=True):
        [alone] = api.running.run_planned([plan(seed, "alone")], model)
        assert [sample.completion for sample in alone.samples] == said
