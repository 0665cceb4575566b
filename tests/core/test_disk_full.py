"""A disk that fills at any write: the command fails in one line, and the same command then finishes what is left."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import lmtasks
from lmtasks import Example, Field, Run, Task
from lmtasks.cli.main import main
from lmtasks.errors import LmtasksError, RunError
from lmtasks.testing import FakeModel

EXAMPLES = [
    Example(id=f"e{number}", inputs={"text": f"number {number}"}, references=(f"answer {number}",))
    for number in range(3)
]
TASK = Task(
    name="echo",
    version=1,
    summary="Echo.",
    fields={"text": Field()},
    prompts={"plain": "Say $text"},
    datasets={"demo": lambda split: iter(EXAMPLES if split == "test" else [])},
    metrics=("exact_match",),
)
MODES = ("from then on", "once")


def answer(prompt: str) -> str:
    return f" answer {prompt.split()[-1]}"


class Torn(io.BufferedWriter):
    """A file on a full disk: half of what is written arrives."""

    def write(self, content: Any, /) -> int:
        super().write(bytes(content)[: len(content) // 2])
        self.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Disk:
    """Counts everything below a folder that needs room on the disk, and refuses some of it."""

    def __init__(self, folder: Path, full_at: int | None, mode: str) -> None:
        self.folder, self.full_at, self.mode, self.count = str(folder), full_at, mode, 0

    def is_full(self, path: object) -> bool:
        if not str(path).startswith(self.folder):
            return False
        self.count += 1
        if self.full_at is None or self.count < self.full_at or (self.mode == "once" and self.count > self.full_at):
            return False
        self.on_full()
        return True

    def on_full(self) -> None:
        """Do nothing more: the write fails."""


@contextmanager
def disk(folder: Path, full_at: int | None = None, mode: str = MODES[0]) -> Iterator[Disk]:
    """Let the n-th write below a folder fail, or all from then on: new folders, locks, files, syncs and renames."""
    found = Disk(folder, full_at, mode)
    honest_open, honest = io.open, {name: getattr(os, name) for name in ("replace", "mkdir", "open", "fsync")}

    def opened(file: Any, how: str = "r", *rest: Any, **settings: Any) -> Any:
        if not set(how) & set("wax") or not found.is_full(file):
            return honest_open(file, how, *rest, **settings)
        assert "b" in how  # what is written as text is written elsewhere
        return Torn(io.FileIO(file, how.replace("b", "")))

    def refusing(name: str) -> Any:
        def call(path: Any, *rest: Any, **settings: Any) -> Any:
            where = os.readlink(f"/proc/self/fd/{path}") if name == "fsync" else path
            changes_nothing = (name == "open" and not rest[0] & os.O_CREAT) or (name == "mkdir" and Path(path).exists())
            if not changes_nothing and found.is_full(where):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(where))
            return honest[name](path, *rest, **settings)

        return call

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(io, "open", opened)
        for name in honest:
            patched.setattr(os, name, refusing(name))
        yield found


def writes_of(folder: Path, call: Any) -> int:
    """Return how often a call that succeeds needs room on the disk."""
    with disk(folder) as counted:
        call()
    assert counted.count > 5
    return counted.count


def fails_on_a_full_disk(folder: Path, number: int, mode: str, call: Callable[[], object]) -> None:
    """See that a call fails in one line where the disk is full at that write."""
    with disk(folder, number, mode), pytest.raises(LmtasksError) as error:
        call()
    assert len(str(error.value).splitlines()) == 1
    assert "No space left on device" in str(error.value)


def is_complete(run: Run) -> None:
    """See that a run folder holds all that a finished run has, and nothing else."""
    assert {file.name for file in run.path.iterdir()} == {"run.json", "samples.jsonl", "report.md"}
    again = Run(run.path)
    assert again.status == "finished"
    assert (again.record.error, again.record.counts.examples) == (None, 3)
    assert again.record.tokens.prompt > 0
    assert again.record.timings.generate_seconds > 0
    report = (run.path / "report.md").read_text()
    assert "Status: finished" in report
    assert "exact_match" in report


@pytest.mark.slow
def test_full_disk_loses_no_written_sample(tmp_path: Path):
    def start(folder: Path, model: FakeModel) -> Run:
        return lmtasks.run(TASK, model=model, output_dir=folder)

    undisturbed = start(tmp_path / "undisturbed", FakeModel(answer))
    count = writes_of(tmp_path / "counted", lambda: start(tmp_path / "counted", FakeModel(answer)))
    finished_too_early = []
    for mode in MODES:
        for number in range(1, count + 1):
            folder = tmp_path / f"{mode}-{number}"
            first, second = FakeModel(answer), FakeModel(answer)
            fails_on_a_full_disk(folder, number, mode, partial(start, folder, first))
            left = list(folder.iterdir()) if folder.exists() else []
            kept: list[str] = []
            if left:
                (path,) = left
                assert not list(path.glob("*.tmp"))
                assert not list(path.glob(".*.part"))
                kept = [sample.id for sample in Run(path).samples]
                finished_too_early += [number] if Run(path).status == "finished" else []
            run = start(folder, second)
            assert left in ([], [run.path])
            assert len(second.prompts) == 3 - len(kept)
            assert run.scores == undisturbed.scores
            assert run.samples == undisturbed.samples
            assert run.record.counts.reused == len(kept)
            is_complete(run)
            assert list(folder.iterdir()) == [run.path]
    assert finished_too_early == []


def test_killed_run_is_resumed_without_generating_twice(tmp_path: Path):
    """A kill leaves what a full disk leaves, but nothing is mended behind it."""

    count = writes_of(
        tmp_path / "counted", lambda: lmtasks.run(TASK, model=FakeModel(answer), output_dir=tmp_path / "counted")
    )
    for number in range(1, count + 1):
        folder = tmp_path / str(number)
        pid = os.fork()
        if not pid:
            with disk(folder, number) as found:
                found.on_full = lambda: os._exit(9)  # type: ignore[method-assign]
                lmtasks.run(TASK, model=FakeModel(answer), output_dir=folder)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
        left = [path for path in (folder.iterdir() if folder.exists() else []) if (path / "run.json").exists()]
        kept = len(Run(left[0]).samples) if left else 0
        model = FakeModel(answer)
        run = lmtasks.run(TASK, model=model, output_dir=folder)
        assert left in ([], [run.path])
        assert len(model.prompts) == 3 - kept
        assert run.scores[0].value == 100
        assert Run(run.path).status == "finished"


def test_full_disk_leaves_no_half_scored_outputs(tmp_path: Path):
    outputs = tmp_path / "outputs.txt"
    outputs.write_text("".join(f"answer {number}\n" for number in range(3)))

    def start(folder: Path) -> Path | None:
        return lmtasks.score(TASK, predictions=outputs, output_dir=folder, resamples=2).path

    count = writes_of(tmp_path / "counted", lambda: start(tmp_path / "counted"))
    for mode in MODES:
        for number in range(1, count + 1):
            folder = tmp_path / f"{mode}-{number}"
            fails_on_a_full_disk(folder, number, mode, partial(start, folder))
            assert not folder.exists() or list(folder.iterdir()) == []
            path = start(folder)
            assert path
            assert {file.name for file in path.iterdir()} == {"run.json", "samples.jsonl", "report.md"}
            assert Run(path).scores[0].value == 100


def test_run_command_on_full_disk_has_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = tmp_path / "data.jsonl"
    data.write_text('{"id": "a", "source": "a", "reference": "x"}\n')
    outputs = tmp_path / "outputs.txt"
    outputs.write_text("x\n")
    words = ["score", "translation/en-zh", "--data", str(data), "--predictions", str(outputs)]
    folder = tmp_path / "runs"
    with disk(folder, 4), pytest.raises(SystemExit) as ended:
        main([*words, "--output-dir", str(folder)])
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert "No space left on device" in line


def test_run_without_its_report_is_not_finished(tmp_path: Path):
    def start(model: FakeModel) -> Run:
        return lmtasks.run(TASK, model=model, output_dir=tmp_path)

    made: list[Path] = []

    def says_and_blocks(prompt: str) -> str:
        (path,) = tmp_path.iterdir()
        (path / "report.md").mkdir(exist_ok=True)
        made.append(path)
        return answer(prompt)

    with pytest.raises(RunError, match=r"report\.md: cannot be written"):
        start(FakeModel(says_and_blocks))
    assert Run(made[0]).status == "failed"
    (made[0] / "report.md").rmdir()
    model = FakeModel(answer)
    run = start(model)
    assert (run.path, model.prompts) == (made[0], [])
    is_complete(run)
