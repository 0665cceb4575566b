"""No plugin can hurt another: whatever one does wrong costs who asked for it one line, and all others nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy  # noqa: F401 - so that it is there before a plugin changes its settings
import pytest
import torch  # noqa: F401
from process_state import state

import lmtasks
from lmtasks.api import run_all
from lmtasks.errors import DataError, LmtasksError, PluginError, PromptError
from lmtasks.options import RunOptions
from lmtasks.plugins import Registry
from lmtasks.runs import Run
from lmtasks.testing import FakeModel

TASK = """
from lmtasks import DataFunction, Example, Generate, Measurement, Metric, Prompt, ScoreSpec, Task, hookimpl

EXAMPLES = [Example(id=id, inputs={{"text": id}}, references=(id,)) for id in ("one", "two", "three")]

def read(split):
    {read}

def ask(inputs):
    {ask}

def parse(completion):
    {parse}

class Share(Metric):
    name = "share"

    def measure(self, samples, language):
        {measure}

{top}

@hookimpl
def register_tasks():
    {register}
    return [Task(name="bad", version=1, summary="Bad.", fields=["text"], prompts={{"plain": Prompt(user=ask)}},
                 datasets={{"demo": DataFunction(read=read, license="MIT")}}, metrics=["exact_match", Share()],
                 output=Generate(parse=parse))]
"""
GOOD = {
    "read": 'return EXAMPLES if split == "test" else []',
    "ask": 'return inputs["text"]',
    "parse": "return completion.strip()",
    "measure": "import numpy as np; return Measurement(statistics=np.ones((len(samples), 1)),"
    ' specs=(ScoreSpec(name="share", signature="share"),), combine=lambda sums: sums)',
    "top": "",
    "register": "",
}
FAIL = 'raise KeyError("gone")'
STATE = """import gc, locale, logging, numpy, os, random, signal, socket, sys, torch, warnings
    random.seed(1); numpy.random.seed(1); torch.manual_seed(1); torch.set_num_threads(1)
    locale.setlocale(locale.LC_ALL, "C.UTF-8" if locale.setlocale(locale.LC_ALL) == "C" else "C")
    logging.getLogger().setLevel(1); logging.getLogger("lmtasks").handlers.append(logging.NullHandler())
    logging.disable(logging.CRITICAL); logging.setLoggerClass(type("Other", (logging.Logger,), {}))
    torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False); torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("medium"); torch.set_default_device("meta")
    numpy.seterr(all="raise"); numpy.set_printoptions(precision=1)
    os.environ["HF_HUB_OFFLINE"] = "maybe"; os.environ.pop("PATH"); os.chdir("/")
    warnings.simplefilter("error"); sys.setrecursionlimit(200); socket.setdefaulttimeout(0.001); gc.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN); sys.excepthook = print; sys.stderr = sys.stdin = None
    sys.path.insert(0, "/folder-of-the-plugin")
    """


def bad(**parts: str) -> str:
    return TASK.format(**{**GOOD, **parts})


def others_work(tmp_path: Path) -> None:
    model = FakeModel(lambda prompt: "A title")
    run = lmtasks.run("titles", model=model, limit=1, output_dir=tmp_path / "others")
    assert run.status == "finished" and run.scores


def run_bad(tmp_path: Path, **options: object) -> Run:
    return lmtasks.run("bad", model=FakeModel(["one", "two", "three"]), output_dir=tmp_path / "runs", **options)


# While a plugin is loaded

AT_IMPORT = {
    "fails to import": ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named"),
    "has a syntax error": ("def (", "SyntaxError: invalid syntax"),
    "calls sys.exit": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "misspells a hook": (bad().replace("register_tasks", "register_task"), "register_task'"),
    "returns the wrong type": (bad(register="return 3"), "register_tasks returned int"),
    "names another plugin's task": (bad().replace('name="bad"', 'name="titles"'), 'a task is named "titles"'),
    "has two tasks of one name": (
        bad().replace("return [Task", "return 2 * [Task"),
        'two of its tasks are named "bad"',
    ),
    "offers nothing": ("", "offers nothing"),
}


@pytest.mark.parametrize("code, cause", AT_IMPORT.values(), ids=AT_IMPORT)
def test_plugin_that_fails_to_load_is_named_with_its_cause(code: str, cause: str, install, tmp_path):
    install("bad", code, version="2.5")
    with pytest.raises(PluginError) as caught:
        run_bad(tmp_path)
    assert str(caught.value).startswith('plugin "bad" (lmtasks-bad 2.5)')
    assert cause in str(caught.value) and "\n" not in str(caught.value)
    loaded, broken = Registry().load_all()
    assert "bad" in broken and "titles" in {plugin.discovered.name for plugin in loaded}
    others_work(tmp_path)


def test_plugin_for_a_newer_lmtasks_names_the_required_version(install, tmp_path):
    install("bad", "raise ImportError('of a name that came later')", requires="lmtasks>=99,<100")
    with pytest.raises(PluginError, match=r'"bad" \(lmtasks-bad 1.0\) needs lmtasks<100,>=99, and this is '):
        run_bad(tmp_path)
    others_work(tmp_path)


def test_requirement_is_recognized_in_any_spelling(install, tmp_path):
    install("bad", bad(), requires="LmTasks>=99")
    with pytest.raises(PluginError, match="needs lmtasks>=99"):
        run_bad(tmp_path)


@pytest.mark.parametrize("part", ["top", "register"])
def test_plugin_that_raises_lmtasks_error_is_named(part, install, tmp_path):
    install("bad", bad(**{part: "import lmtasks; raise lmtasks.LmtasksError('no such folder')"}))
    loaded, broken = Registry().load_all()
    assert "titles" in {plugin.discovered.name for plugin in loaded}
    assert str(broken["bad"]).startswith('plugin "bad" (lmtasks-bad 1.0)')
    assert "LmtasksError: no such folder (" in str(broken["bad"])


@pytest.mark.parametrize(
    "metric",
    ["name = []", "name = ''", "name = property(lambda self: 1 / 0)", "__getattr__ = lambda self, name: 1 / 0"],
)
def test_metric_without_a_valid_name_fails_only_its_plugin(metric, install):
    code = f"class Odd:\n    {metric}\n    def measure(self, samples, language): ...\n"
    install("bad", bad(top=code) + "\n@hookimpl\ndef register_metrics():\n    return [Odd()]\n")
    loaded, broken = Registry().load_all()
    assert "titles" in {plugin.discovered.name for plugin in loaded}
    assert str(broken["bad"]).startswith('plugin "bad" (lmtasks-bad 1.0): ')


def test_module_without_readable_dir_fails_only_its_plugin(install):
    install("bad", bad() + "\ndef __dir__():\n    raise KeyError('gone')\n")
    assert "cannot be searched for hooks: KeyError: 'gone'" in str(Registry().load_all()[1]["bad"])


def test_damaged_metadata_of_another_package_fails_no_plugin(install, tmp_path, monkeypatch, caplog):
    install("bad", bad())
    info = tmp_path / "odd-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_bytes(b"[lmtasks]\nno equals sign \xff\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert {"bad", "titles", "summarization"} <= set(Registry().discovered)
    assert f"{info}: entry_points.txt cannot be read" in caplog.text


def test_plugin_with_the_name_of_a_first_party_plugin_is_ignored(install, tmp_path):
    install("qa", bad().replace('name="bad"', 'name="qa"'))
    registry = Registry()
    assert registry.task("qa")[1].discovered.distribution == "lmtasks"
    [(plugin, error)] = registry.shadowed
    assert plugin.distribution == "lmtasks-qa"
    assert "has the name of one that lmtasks brings, and is left out" in str(error)


@pytest.mark.parametrize("needed", ["lmtasks>=0.0.1", "lmtasks>=99; extra == 'later'", "other>=99", "no requirement!"])
def test_requirement_that_holds_or_is_unrelated_is_ignored(needed, install, tmp_path):
    install("bad", bad(), requires=needed)
    assert run_bad(tmp_path).status == "finished"


def test_duplicate_plugin_name_fails_both_and_no_other(install, tmp_path):
    install("bad", bad(), version="1.0")
    install("bad", bad(), version="2.0")
    # The path holds one distribution of a name: the second has another.
    path = next(Path(folder) for folder in sys.path if (Path(folder) / "lmtasks_bad-1.0.dist-info").is_dir())
    (path / "lmtasks_bad-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
    (path / "lmtasks_bad-1.0.dist-info").rename(path / "rival-1.0.dist-info")
    with pytest.raises(PluginError, match='"bad" is claimed by .*; uninstall all but one') as caught:
        run_bad(tmp_path)
    assert "lmtasks-bad 2.0" in str(caught.value) and "rival 1.0" in str(caught.value)
    others_work(tmp_path)


def test_slow_plugin_is_not_imported_for_other_tasks(install, tmp_path):
    install("bad", "import time; time.sleep(10)")
    others_work(tmp_path)
    assert "lmtasks_bad" not in sys.modules


def test_plugin_output_never_reaches_stdout(install, tmp_path, capsys):
    parts = {part: f'print("noise of {part}"); {GOOD[part]}' for part in ("read", "ask", "parse", "measure")}
    install("bad", bad(top='print("noise of top")', register='print("noise of register")', **parts))
    assert run_bad(tmp_path).status == "finished"
    written = capsys.readouterr()
    assert written.out == ""
    for part in (*parts, "top", "register"):
        assert f"noise of {part}" in written.err


@pytest.mark.parametrize("part", ["top", "register", "read", "ask", "parse", "measure"])
def test_process_state_is_restored_after_plugin_code(part, install, tmp_path):
    code = STATE if part != "top" else STATE.replace("\n    ", "\n")
    code = code.replace("\n    ", "\n        ") if part == "measure" else code
    install("bad", bad(**{part: code + GOOD[part]}))
    before = state()
    run_bad(tmp_path)
    assert state() == before
    assert "/folder-of-the-plugin" in sys.path
    sys.path.remove("/folder-of-the-plugin")


@pytest.mark.slow
def test_process_state_is_restored_if_a_plugin_imports_torch_first(tmp_path):
    (tmp_path / "bad.py").write_text(bad(top=STATE.replace("\n    ", "\n")))
    code = """
import json, subprocess, sys
from process_state import state
from lmtasks.plugins import Registry
assert "torch" not in sys.modules and "numpy" not in sys.modules
before = state()
Registry().task("bad.py")
after = state()
print(json.dumps([before, {name: after[name] for name in before}, after]))
"""
    fresh = "import json, numpy, torch; from process_state import state; print(json.dumps(state()))"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    outputs = []
    for each in (code, fresh):
        command = [sys.executable, "-c", each]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        outputs.append(json.loads(done.stdout))
    [before, same, after], never = outputs
    assert same == before
    for name in ("threads", "dtype", "device", "grad", "deterministic", "precision", "errors", "printing"):
        assert after[name] == never[name], name


def test_import_path_added_by_a_plugin_hides_no_other_module(install, tmp_path):
    (tmp_path / "evaluate.py").write_text("raise RuntimeError('of the plugin')")
    (tmp_path / "of_the_plugin.py").write_text("SHOUT = str.upper")
    top = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    install("bad", bad(top=top, parse="from of_the_plugin import SHOUT; return SHOUT(completion)"))
    assert [sample.prediction for sample in run_bad(tmp_path).samples] == ["ONE", "TWO", "THREE"]
    assert Path(find_spec("evaluate").origin).parent != tmp_path
    sys.path.remove(str(tmp_path))
    sys.modules.pop("of_the_plugin")


# While a plugin runs


def test_reader_error_fails_its_run_with_one_line(install, tmp_path):
    install("bad", bad(read=f"yield EXAMPLES[0]; {FAIL}"))
    with pytest.raises(DataError) as caught:
        run_bad(tmp_path)
    assert str(caught.value).startswith('task "bad" (lmtasks-bad 1.0): reading its data set "demo" failed: KeyError:')
    assert "lmtasks_bad.py, line 7)" in str(caught.value)
    others_work(tmp_path)


@pytest.mark.parametrize(
    "example",
    ["Example(id='a', inputs={}, references=())", "Example(id='a', inputs={'text': 3}, references=())", "'one'",
     "Example(id='one', inputs={'text': 'x', 'more': 'y'}, references=())", "EXAMPLES[0]"],
    ids=["a field is missing", "no text", "no example", "an unknown field", "an id that stands already"],
)  # fmt: skip
def test_reader_error_names_the_broken_example(example, install, tmp_path):
    install("bad", bad(read=f"yield EXAMPLES[0]; yield {example}"))
    with pytest.raises(DataError, match=r'^task "bad" \(lmtasks-bad 1.0\)') as caught:
        run_bad(tmp_path)
    assert '"demo"' in str(caught.value)
    others_work(tmp_path)


@pytest.mark.parametrize(
    "broken, expected",
    [
        ("id=3, inputs={'text': 'x'}, references=()", "id must be text"),
        ("id='a', inputs={'text': 'x'}, references='title'", "references must be a tuple of texts"),
        ("id='a', inputs={'text': 'x'}, references=(3,)", "references must be text"),
        ("id='a', inputs={'text': 'x'}, references=(), target=b'x'", "target must be text or None"),
        ("id='a', inputs={'text': 'x'}, references=(), language=3", "language must be text or None"),
        ("id='a', inputs={'text': 'x'}, references=(), meta=None", "meta must be text by name"),
        ("id='a', inputs={'text': 'x'}, references=(), meta={'n': float('nan')}", "meta must be text by name"),
        ("id='a', inputs=None, references=()", "inputs must be text by name"),
    ],
)
def test_examples_are_fully_checked_before_generation(broken, expected, install, tmp_path):
    install("bad", bad(read=f"yield Example({broken})"))
    with pytest.raises(DataError, match=f'^task "bad" .*, data set "demo", example .*: {expected}$'):
        run_bad(tmp_path)
    assert not (tmp_path / "runs").exists()


def test_lone_surrogates_lose_no_example(install, tmp_path):
    install(
        "bad",
        bad(
            read="yield Example(id='a\\ud800', inputs={'text': 'b\\ud800'}, references=('c?',), meta={'d': '\\udfff'})",
            ask="return inputs['text'] + '\\ud800'",
            parse="return 'c\\ud800'",
        ),
    )
    [sample] = run_bad(tmp_path).samples
    assert (sample.id, sample.inputs, sample.prediction, sample.meta) == ("a?", {"text": "b?"}, "c?", {"d": "?"})


@pytest.mark.parametrize("part", ["parse", "measure"])
def test_error_that_utf8_cannot_hold_is_recorded(part, install, tmp_path):
    install("bad", bad(**{part: "raise ValueError('x\\ud800')"}))
    with pytest.raises(PluginError, match="ValueError: x\\\\u"):
        run_bad(tmp_path)
    run = only_run(tmp_path)
    assert run.status == "failed" and len(run.samples) == 3


def test_parser_that_raises_lmtasks_error_fails_one_example(install, tmp_path):
    install("bad", bad(parse="import lmtasks; raise lmtasks.LmtasksError('cannot read')"))
    with pytest.raises(
        PluginError, match=r'^task "bad" \(lmtasks-bad 1.0\): its parser failed on example "one": Lmtasks'
    ):
        run_bad(tmp_path)
    assert len(only_run(tmp_path).samples) == 3


def test_parser_may_close_stdout_or_remove_the_working_directory(install, tmp_path, monkeypatch, capsys):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    gone = str(tmp_path / "there")
    remove = f"import shutil, sys; sys.stdout.close(); shutil.rmtree({gone!r}, ignore_errors=True)"
    install("bad", bad(parse=f"{remove}; return completion"))
    assert run_bad(tmp_path).status == "finished"
    print("still open", file=sys.stderr)
    assert "still open" in capsys.readouterr().err
    others_work(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "harm",
    ["samples.pop()", "object.__setattr__(samples[0], 'prediction', 'x')", "samples[0].inputs['text'] = 3"],
)
def test_metric_cannot_change_samples_of_other_metrics(harm, install, tmp_path):
    rows = "import numpy as np; n = len(samples)"
    returned = "return Measurement(statistics=np.ones((n, 1)), specs=KINDS, combine=lambda sums: sums)"
    code = bad(top="KINDS = (ScoreSpec(name='share', signature='share'),)", measure=f"{rows}; {harm}; {returned}")
    install("bad", code.replace('["exact_match", Share()]', '[Share(), "exact_match"]'))
    run = run_bad(tmp_path)
    assert {score.name: score.value for score in run.scores}["exact_match"] == 100


def test_score_records_numpy_numbers_as_python_numbers(install, tmp_path):
    kind = "ScoreSpec(name='share', signature='s', n=np.int64(2), higher_is_better=np.bool_(False))"
    returned = f"Measurement(statistics=np.ones((len(samples), 1)), specs=({kind},), combine=lambda sums: sums)"
    install("bad", bad(measure=f"import numpy as np; return {returned}"))
    [_, score] = run_bad(tmp_path).scores
    assert (score.n, score.higher_is_better) == (2, False)


def test_prompt_function_error_stops_the_run_before_generation(install, tmp_path):
    install("bad", bad(ask='return inputs["text"] if inputs["text"] == "one" else inputs["gone"]'))
    with pytest.raises(PromptError) as caught:
        run_bad(tmp_path)
    assert str(caught.value).startswith('task "bad" (lmtasks-bad 1.0), example "two": the user part of prompt "plain"')
    assert "KeyError: 'gone' (" in str(caught.value)
    assert not list((tmp_path / "runs").glob("*/samples.jsonl"))
    others_work(tmp_path)


def only_run(tmp_path: Path) -> Run:
    [path] = (tmp_path / "runs").glob("*bad*")
    return Run(path)


def test_parser_error_fails_its_example_and_keeps_all_completions(install, tmp_path):
    install("bad", bad(parse='return {"one": "one", "three": "three"}[completion]'))
    with pytest.raises(PluginError) as caught:
        run_bad(tmp_path)
    assert str(caught.value).startswith('task "bad" (lmtasks-bad 1.0): its parser failed on example "two": KeyError')
    run = only_run(tmp_path)
    assert run.status == "failed"
    assert [sample.completion for sample in run.samples] == ["one", "two", "three"]
    assert [sample.prediction for sample in run.samples] == ["one", "", "three"]
    assert "KeyError: 'two'" in (run.samples[1].error or "") and run.samples[0].error is None
    assert {score.name: score.value for score in run.scores}["exact_match"] == pytest.approx(200 / 3)
    assert run.record.counts.unparsed == 1
    assert "1 of 3 not parsed by the task" in (run.path / "report.md").read_text()
    others_work(tmp_path)


def test_run_resumes_with_a_fixed_parser_without_generating(install, tmp_path):
    install("bad", bad(parse='return {"one": "one", "three": "three"}[completion]'), version="1.0")
    with pytest.raises(PluginError):
        run_bad(tmp_path)
    sys.modules.pop("lmtasks_bad")
    install("bad", bad(), version="1.1")
    for folder in [folder for folder in sys.path if (Path(folder) / "lmtasks_bad-1.0.dist-info").is_dir()]:
        sys.path.remove(folder)
    model = FakeModel([])  # has nothing to say
    run = lmtasks.run("bad", model=model, output_dir=tmp_path / "runs")
    assert run.path == only_run(tmp_path).path and run.status == "finished"
    assert model.prompts == []
    assert [sample.prediction for sample in run.samples] == ["one", "two", "three"]
    assert run.record.task.distribution_version == "1.1"


def test_metric_error_fails_its_score_and_no_other(install, tmp_path):
    install("bad", bad(measure=FAIL))
    expected = r'^metric "share" of task "bad" \(lmtasks-bad 1.0\) failed: KeyError: .gone. .*lmtasks_bad.py, line'
    with pytest.raises(PluginError, match=expected) as caught:
        run_bad(tmp_path)
    run = only_run(tmp_path)
    assert str(run.path) in str(caught.value)
    assert (run.status, [score.name for score in run.scores]) == ("failed", ["exact_match"])
    assert len(run.samples) == 3
    others_work(tmp_path)


@pytest.mark.parametrize(
    "returned, expected",
    [
        ("Measurement(statistics=[[1.0]] * 3, specs=(), combine=sum)", "it has no specs"),
        (
            "Measurement(statistics=[[1.0]] * 3, specs=(ScoreSpec(name=3, signature=''),), combine=sum)",
            "name of one of",
        ),
        ("{'share': 1.0}", "it returned dict, expected lmtasks.Measurement"),
        ("Measurement(statistics=[1.0] * len(samples), specs=KINDS, combine=sum)", "statistics of shape [3], expected"),
        ("Measurement(statistics=[[1.0]], specs=KINDS, combine=lambda sums: sums)", "1 rows of statistics for 3"),
        ("Measurement(statistics=[['x']] * 3, specs=KINDS, combine=lambda sums: sums)", "str_, expected numbers"),
        (
            "Measurement(statistics=[[1.0]] * 3, specs=('share',), combine=lambda sums: sums)",
            "one of its specs is str, expected",
        ),
        ("Measurement(statistics=[[1.0]] * 3, specs=KINDS, combine=lambda sums: sums[0])", "combine returns values of"),
        ("Measurement(statistics=[[1.0]] * 3, specs=KINDS, combine=lambda sums: 1 / 0)", "ZeroDivisionError"),
    ],
    ids=[
        "no kinds at all",
        "a name that is none",
        "no measurement",
        "a vector",
        "too few rows",
        "text",
        "no kinds",
        "another shape",
        "a failing sum",
    ],
)
def test_metric_with_invalid_result_fails_only_its_score(returned, expected, install, tmp_path):
    install("bad", bad(top="KINDS = (ScoreSpec(name='share', signature='share'),)", measure=f"return {returned}"))
    with pytest.raises(PluginError) as caught:
        run_bad(tmp_path)
    assert expected in str(caught.value)
    assert [score.name for score in only_run(tmp_path).scores] == ["exact_match"]


def test_metric_that_is_nan_is_left_out_with_a_warning(install, tmp_path, caplog):
    combined = "Measurement(statistics=np.ones((len(samples), 1)), specs=(ScoreSpec(name='share', signature='s'),)"
    install("bad", bad(measure=f"import numpy as np; return {combined}, combine=lambda sums: sums * np.nan)"))
    assert [score.name for score in run_bad(tmp_path).scores] == ["exact_match"]
    assert "share is not defined on these 3 examples, and left out" in caplog.text


def test_metric_error_names_its_plugin_in_another_task(install, tmp_path):
    code = bad(measure=FAIL) + "\n@hookimpl\ndef register_metrics():\n    return [Share()]\n"
    install("bad", code)
    with pytest.raises(PluginError, match=r'^metric "bad/share" \(lmtasks-bad 1.0\) failed: KeyError'):
        lmtasks.run(
            "titles", model=FakeModel(lambda _: "x"), metrics=("rouge", "bad/share"), output_dir=tmp_path / "runs"
        )


def test_score_without_the_failing_metric_has_the_other_scores(install, tmp_path):
    install("bad", bad(measure=FAIL) + "\n@hookimpl\ndef register_metrics():\n    return [Share()]\n")
    run = lmtasks.run("titles", model=FakeModel(lambda _: "x"), output_dir=tmp_path / "runs")
    failures: list[LmtasksError] = []
    scored = lmtasks.score(run, metrics=("chrf", "bad/share"), on_failure=failures.append)
    assert {score.name for score in scored.scores} == {"chrF"}
    assert str(failures[0]).startswith('metric "bad/share" (lmtasks-bad 1.0) failed: KeyError')
    with pytest.raises(PluginError, match="bad/share"):
        lmtasks.score(run, metrics=("chrf", "bad/share"))


def test_run_all_finishes_tasks_beside_a_failing_one(install, tmp_path):
    install("bad", bad(parse=FAIL))
    failures: list[LmtasksError] = []
    runs = run_all(
        [("bad", None), ("titles", None)],
        RunOptions(output_dir=tmp_path / "runs"),
        model=FakeModel(lambda _: "x"),
        on_failure=failures.append,
    )
    assert [run.status for run in runs] == ["failed", "finished"]
    [failure] = failures
    assert "and 2 more; they count as empty" in str(failure)


@pytest.mark.slow
def test_command_line_prints_other_results_and_the_failure(install, tiny_folder, tmp_path):
    install("bad", bad(parse=FAIL))
    path = next(folder for folder in sys.path if (Path(folder) / "lmtasks_bad.py").is_file())
    example_plugins = Path(__file__).parents[1] / "data" / "example_plugins"
    code = f"import sys; sys.path[:0] = [{path!r}, {str(example_plugins)!r}]; from lmtasks.cli.main import main; main()"
    command = [sys.executable, "-c", code, "run", "bad", "titles", "--model", str(tiny_folder), "--max-new-tokens", "3"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    first, second = json.loads(done.stdout)
    assert (first["status"], second["status"]) == ("failed", "finished")
    assert second["scores"]
    expected = [line for line in done.stderr.splitlines() if line.startswith("lmtasks: task")]
    assert len(expected) == 1 and 'its parser failed on example "one": KeyError' in expected[0]
    verbose = subprocess.run([*command, "-v"], capture_output=True, text=True, cwd=tmp_path)
    assert "Traceback (most recent call last)" in verbose.stderr


@pytest.mark.slow
def test_output_of_compiled_code_and_child_processes_never_reaches_stdout(tiny_folder, tmp_path):
    shout = "import os, subprocess, sys; os.write(1, b'noise\\n'); sys.__stdout__.write('noise\\n');"
    shout += " sys.__stdout__.flush(); subprocess.run([sys.executable, '-c', 'print(\"noise\")'])"
    top = f"{shout}; import atexit; atexit.register(print, 'noise')"
    (tmp_path / "bad.py").write_text(bad(top=top, parse=f"{shout}; return completion"))
    command = [sys.executable, "-m", "lmtasks", "run", "./bad.py", "--model", str(tiny_folder), "--max-new-tokens", "3"]
    done = subprocess.run([*command, "--limit", "1", "--json"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "finished"
    assert done.stderr.count("noise\n") == 7


@pytest.mark.parametrize(
    "error, expected",
    [
        ("type('Odd', (BaseException,), {})('odd')", "Odd: odd"),
        ("type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})()", "Mute: its own message could not be read"),
        ("ValueError('one\\ntwo \\x1b[31mred')", "ValueError: one two \\u001b[31mred"),
        ("ValueError('x' * 5000)", "xxx..."),
        ("MemoryError()", "MemoryError ("),
        ("RecursionError()", "RecursionError ("),
    ],
    ids=["no Exception", "a message that raises", "lines and colours", "a long message", "memory", "recursion"],
)
def test_any_raised_error_is_reported_in_one_line(error, expected, install, tmp_path):
    install("bad", bad(parse=f"raise {error}"))
    with pytest.raises(PluginError) as caught:
        run_bad(tmp_path)
    line = str(caught.value)
    assert expected in line and "\n" not in line and "\x1b" not in line and len(line) < 1500
    assert "lmtasks_bad.py, line 13)" in line
    others_work(tmp_path)


def test_library_error_is_located_in_the_plugin_file(install, tmp_path):
    install("bad", bad(parse='import json; return json.loads("{")'))
    with pytest.raises(PluginError, match=r"JSONDecodeError: .*lmtasks_bad.py, line 13\)"):
        run_bad(tmp_path)
