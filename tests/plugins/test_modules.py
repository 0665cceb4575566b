"""Modules of `evaluate` are called as plugins are: whatever one does costs its scores one line, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch  # noqa: F401 - so that it is there before a module changes its settings
from process_state import state
from test_isolation import STATE

import lmtasks
from lmtasks import Example, Task
from lmtasks.errors import LmtasksError
from lmtasks.testing import FakeModel

MODULE = """
import datasets
import evaluate
import random
import sys

{top}

class {name}(evaluate.Metric):
    def _info(self):
        {info}
        text = datasets.Value("string")
        features = datasets.Features({{"predictions": text, "references": text}})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _download_and_prepare(self, dl_manager):
        {prepare}

    {features}

    def _compute(self, predictions, references):
        {compute}
"""
GOOD = {
    "top": "",
    "info": "",
    "prepare": "pass",
    "features": "",
    "compute": 'return {"share": 0.25}',
}
FEATURES = """@property
    def features(self):
        {code}
        return evaluate.Metric.features.fget(self)"""
RESULT = """class Odd(dict):
            def items(self):
                {code}
                return super().items()
        return Odd(share=0.25)"""
STAGES: dict[str, Callable[[str], dict[str, str]]] = {
    "import": lambda code: {"top": f"if True: {code}"},  # evaluate reads lines that begin with "import"
    "info": lambda code: {"info": code},
    "prepare": lambda code: {"prepare": code},
    "features": lambda code: {"features": FEATURES.format(code=code)},
    "compute": lambda code: {"compute": f"{code}; {GOOD['compute']}"},
    "result": lambda code: {"compute": RESULT.format(code=code)},
}
RAISED = {
    "sys.exit": ("sys.exit(0)", "SystemExit: 0"),
    "exit without a word": ("raise SystemExit", "SystemExit"),
    "no Exception": ("raise type('Odd', (BaseException,), {})('odd')", "Odd: odd"),
    "an error of lmtasks": ("import lmtasks; raise lmtasks.LmtasksError('no')", "LmtasksError: no"),
    "lines and colours": ("raise ValueError('one\\ntwo \\x1b[31mred')", "ValueError: one two \\u001b[31mred"),
    "recursion": ("raise RecursionError()", "RecursionError"),
}


pytestmark = pytest.mark.usefixtures("evaluate_caches")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, str]], str]:
    """Write a module with such parts, and return what metrics call it."""

    def write(parts: dict[str, str]) -> str:
        # A name of its own: evaluate keeps what it has imported.
        name = f"odd{abs(hash((str(tmp_path), *parts.items())))}"
        folder = tmp_path / name
        folder.mkdir()
        (folder / f"{name}.py").write_text(MODULE.format(**{**GOOD, "name": name, **parts}), encoding="utf-8")
        return f"evaluate:{folder}"

    return write


def run(tmp_path: Path, name: str) -> lmtasks.Run:
    examples = [Example(id=id, inputs={"text": id}, references=(id,)) for id in ("one", "two", "three")]
    task = Task(
        name="echo",
        version=1,
        summary="Echo.",
        fields=["text"],
        prompts={"plain": "$text"},
        datasets={"demo": lambda split: examples if split == "test" else []},
        metrics=["exact_match", name],
    )
    return lmtasks.run(task, model=FakeModel(["one", "two", "three"]), output_dir=tmp_path / "runs")


@pytest.mark.parametrize(
    "raised, stage",
    [*(("sys.exit", stage) for stage in STAGES), *((raised, "import") for raised in RAISED if raised != "sys.exit")],
)
def test_module_error_is_one_line_with_its_name(raised, stage, write, tmp_path):
    code, cause = RAISED[raised]
    name = write(STAGES[stage](code))
    with pytest.raises(LmtasksError) as caught:
        run(tmp_path, name)
    line = str(caught.value)
    assert line.count(f'metric "{name}"') == 1 and cause in line
    assert "\n" not in line and "\x1b" not in line
    assert "odd" in line.rpartition("(")[2] and ".py, line " in line.rpartition("(")[2]


@pytest.mark.parametrize("stage", ["compute", "result"])
def test_module_that_fails_late_loses_only_its_scores(stage, write, tmp_path):
    with pytest.raises(LmtasksError, match="SystemExit: 0"):
        run(tmp_path, write(STAGES[stage]("sys.exit(0)")))
    [folder] = (tmp_path / "runs").iterdir()
    kept = lmtasks.Run(folder)
    assert (kept.status, [score.name for score in kept.scores], len(kept.samples)) == ("failed", ["exact_match"], 3)


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "features"])
def test_module_changes_of_the_process_are_undone(stage, write, tmp_path):
    code = STATE.replace("\n    ", "; ").rstrip("; ").replace(";;", ";")
    name = write(STAGES[stage](code))
    before = state()
    assert {score.name for score in run(tmp_path, name).scores} >= {"exact_match"}
    assert state() == before
    sys.path.remove("/folder-of-the-plugin")


@pytest.mark.parametrize("stage", STAGES)
def test_module_output_never_reaches_stdout(stage, write, tmp_path, capsys):
    assert run(tmp_path, write(STAGES[stage]("print('noise')"))).status == "finished"
    written = capsys.readouterr()
    assert written.out == "" and "noise" in written.err


@pytest.mark.parametrize(
    "returns, expected",
    [("None", "returned NoneType, expected numbers by name"), ("[0.5]", "returned list"), ("{3: 'x'}", "no number")],
)
def test_module_result_without_numbers_is_refused(returns, expected, write, tmp_path):
    with pytest.raises(LmtasksError, match=expected):
        run(tmp_path, write({"compute": f"return {returns}"}))


def test_module_score_names_are_one_line(write, tmp_path):
    name = write({"compute": "return {3: 0.5, 'a\\nb\\x1b[31m': 0.25}"})
    stem = f"evaluate:{Path(name).name}"
    scores = {score.name: score.value for score in run(tmp_path, name).scores if score.name != "exact_match"}
    assert scores == {f"{stem}/3": 0.5, f"{stem}/a b\\u001b[31m": 0.25}


SHOUT = "import os, subprocess; os.write(1, b'noise\\n'); subprocess.run(['echo', 'noise'])"


@pytest.mark.slow
def test_module_can_neither_exit_nor_write_results(write, tmp_path):
    (tmp_path / "data.jsonl").write_text('{"id": "a", "text": "b", "references": ["c"]}\n')
    (tmp_path / "outputs.txt").write_text("c\n")
    caches = {"HF_HOME": str(tmp_path / "hub"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = []
    for code in ("sys.exit(0)", SHOUT):
        name = write(STAGES["import"](code))
        command = ["score", "summarization", "--data", "data.jsonl", "--predictions", "outputs.txt", "--json"]
        done.append(
            subprocess.run(
                [sys.executable, "-m", "lmtasks", *command, "--metrics", name],
                capture_output=True,
                text=True,
                cwd=tmp_path,
                env={**os.environ, **caches},
            )  # fmt: skip
        )
    ended, shouted = done
    assert (ended.returncode, ended.stdout) == (1, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith('lmtasks: metric "evaluate:') and "SystemExit: 0" in line
    assert shouted.returncode == 0, shouted.stderr
    assert json.loads(shouted.stdout)["scores"][0]["value"] == 0.25
    assert shouted.stderr.count("noise\n") == 2
