"""Metrics of plugins: what they return is checked, and a check of their own is called."""

from __future__ import annotations

import re
import sys

import pytest
from process_state import state
from test_isolation import STATE, bad, only_run, others_work, run_bad

import lmtasks
from lmtasks.checks.plugin import METRICS_WORK, check_plugin
from lmtasks.errors import MetricError, PluginError
from lmtasks.testing import FakeModel, check_task

# Metrics whose sums do not combine

KINDS = """
KINDS = (ScoreSpec(name="share", signature="share"),)
TWO = (*KINDS, ScoreSpec(name="other", signature="other"))
"""
MEASURED = "import numpy as np; return Measurement(statistics={statistics}, specs={specs}, combine={combine})"
STATISTICS = "[[float(sample.prediction == 'one'), 1.0] for sample in samples]"
RATIO = "lambda sums: sums[..., :1] / sums[..., 1:]"
STATE_OF_ITS_OWN = "(lambda calls: lambda sums: sums[..., :1] * (calls.append(1) or len(calls)))([])"
NOT_BY_ROWS = {
    "one sum of all": ("lambda sums: np.array([sums.sum()])", "it returned [1]"),
    "the first axis": ("lambda sums: sums[:1] / sums[1]", "it returned [1, 2]"),
    "a list of numbers": ("lambda sums: [float(sums[0]) / float(sums[1])]", "it raised TypeError"),
    "no axis of kinds": ("lambda sums: sums[..., 0] / sums[..., 1] if sums.ndim > 1 else sums[:1]", "it returned [4]"),
    "one row for all": ("lambda sums: np.atleast_2d(sums)[0, :1] / 3", "it returned [1]"),
    "more kinds for rows": ("lambda sums: sums if sums.ndim > 1 else sums[:1]", "it returned [4, 2]"),
    "the largest of all": ("lambda sums: sums[..., :1] / sums.max()", "than of each by itself"),
    "a running sum": ("lambda sums: np.cumsum(sums[..., :1] + 1, axis=0)", "than of each by itself"),
    "a failure of rows": ("lambda sums: sums[:1] if sums.ndim == 1 else 1 / 0", "it raised ZeroDivisionError"),
    "a truth of rows": ("lambda sums: sums[..., :1] if sums[..., 1] > 0 else sums[..., 1:]", "it raised ValueError"),
}


def measuring(*, combine: str = RATIO, statistics: str = STATISTICS, specs: str = "KINDS") -> str:
    return bad(top=KINDS, measure=MEASURED.format(statistics=statistics, specs=specs, combine=combine))


@pytest.mark.parametrize("combine, expected", NOT_BY_ROWS.values(), ids=NOT_BY_ROWS)
def test_combine_that_does_not_accept_rows_is_refused(combine, expected, install, tmp_path):
    install("bad", measuring(combine=combine))
    with pytest.raises(PluginError) as caught:
        run_bad(tmp_path)
    line = str(caught.value)
    assert line.startswith('metric "share" of task "bad" (lmtasks-bad 1.0) failed: ') and "\n" not in line
    assert "combine must take sums of shape [..., statistics] and return values of shape [..., specs]" in line
    assert expected in line
    assert [score.name for score in only_run(tmp_path).scores] == ["exact_match"]


@pytest.mark.parametrize(
    "combine",
    [STATE_OF_ITS_OWN, "lambda sums: sums[..., :1] * np.random.random()"],
    ids=["counts its calls", "draws"],
)
def test_combine_that_depends_on_more_than_the_sums_is_refused(combine, install, tmp_path):
    install("bad", measuring(combine=combine))
    with pytest.raises(PluginError, match="combine must "):
        run_bad(tmp_path)


@pytest.mark.parametrize("value", ["float('nan')", "float('inf')", "-float('inf')"])
def test_statistics_that_are_not_finite_are_refused_with_their_example(value, install, tmp_path):
    combine = "lambda sums: np.nan_to_num(sums)"  # which would hide it
    install("bad", measuring(statistics=f"[[1.0], [{value}], [1.0]]", combine=combine))
    with pytest.raises(PluginError, match='the statistics of example "two" are .*must be finite'):
        run_bad(tmp_path)


@pytest.mark.parametrize(
    "statistics", ["[['1']] * 3", "[[None]] * 3", "[[1j]] * 3", "np.ma.masked_equal([[1]] * 3, 1)"]
)
def test_statistics_that_are_not_numbers_are_refused(statistics, install, tmp_path):
    install("bad", measuring(statistics=statistics, combine="lambda sums: sums"))
    with pytest.raises(PluginError, match="statistics: .*, expected numbers"):
        run_bad(tmp_path)


RIGHT = {
    "as it is documented": RATIO,
    "in place": "lambda sums: np.divide(sums, sums[..., 1:], out=sums)[..., :1]",
    "in place, the argument alone": "lambda sums: [sums.__itruediv__(3), sums[..., :1]][1]",
    "float32": "lambda sums: (sums[..., :1] / sums[..., 1:]).astype('float32')",
    "lists": "lambda sums: (sums[..., :1] / sums[..., 1:]).tolist()",
    "objects": "lambda sums: (sums[..., :1] / sums[..., 1:]).astype(object)",
}


@pytest.mark.parametrize("combine", RIGHT.values(), ids=RIGHT)
def test_combine_that_treats_rows_one_by_one_is_accepted(combine, install, tmp_path):
    install("bad", measuring(combine=combine))
    [share] = [score for score in run_bad(tmp_path).scores if score.name == "share"]
    assert (share.value, share.low, share.high) == (pytest.approx(1 / 3), 0, pytest.approx(1))


def test_statistics_may_be_integers(install, tmp_path):
    install("bad", measuring(statistics="[[1, 2]] * 3", combine="lambda sums: sums.astype(int)", specs="TWO"))
    scores = {score.name: (score.value, score.low, score.high) for score in run_bad(tmp_path).scores}
    assert (scores["share"], scores["other"]) == ((3, 3, 3), (6, 6, 6))


def test_combine_of_a_corpus_score_need_not_accept_rows(install, tmp_path):
    install("bad", measuring(statistics="np.zeros((3, 0))", combine="lambda sums: np.array([0.5])"))
    [share] = [score for score in run_bad(tmp_path).scores if score.name == "share"]
    assert (share.value, share.low) == (0.5, None)


# A metric's own check


CHECKED = """
class Checked(Share):
    def check(self):
        {check}

@hookimpl
def register_metrics():
    return [Checked()]
"""


def with_check(check: str) -> str:
    code = CHECKED.format(check=check)
    return bad().replace('metrics=["exact_match", Share()]', 'metrics=["exact_match", Checked()]') + code


@pytest.mark.parametrize(
    "check, expected",
    [
        ("raise ImportError('pip install words')", "ImportError: pip install words"),
        ("import a_package_that_is_not_there", "ModuleNotFoundError: No module named"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("import lmtasks; raise lmtasks.LmtasksError('no words')", "LmtasksError: no words"),
    ],
)
def test_check_of_a_plugin_metric_is_called_before_the_model(check, expected, install, tmp_path):
    install("bad", with_check(check))
    model = FakeModel(["one", "two", "three"])
    for task, metrics, of in (("bad", None, 'share" of task "bad"'), ("titles", ("bad/share",), 'bad/share" ')):
        with pytest.raises(MetricError) as caught:
            lmtasks.run(task, model=model, metrics=metrics, output_dir=tmp_path / "runs")
        line = str(caught.value)
        assert line.startswith(f'metric "{of}') and "(lmtasks-bad 1.0) cannot be used: " in line and expected in line
        assert "lmtasks_bad.py, line " in line
    assert model.prompts == [] and not (tmp_path / "runs").exists()
    others_work(tmp_path)


def test_check_of_a_plugin_metric_is_isolated(install, tmp_path, capsys):
    install("bad", with_check(STATE.replace("\n    ", "\n        ") + "print('noise')"))
    before = state()
    assert run_bad(tmp_path).status == "finished"
    assert state() == before
    assert capsys.readouterr().out == ""
    sys.path.remove("/folder-of-the-plugin")


def test_check_task_reports_failing_check_and_combine(install):
    for code, expected in (
        (with_check("raise ImportError('pip install words')"), "ImportError: pip install words"),
        (measuring(combine=NOT_BY_ROWS["one sum of all"][0]), "combine must take sums"),
    ):
        install("bad", code)
        sys.modules.pop("lmtasks_bad", None)
        with pytest.raises(AssertionError, match=expected):
            check_task("bad")


REGISTERED = "\n@hookimpl\ndef register_metrics():\n    return [Share()]\n"


@pytest.mark.parametrize(
    "code, status, expected",
    [
        (measuring() + REGISTERED, "ok", ""),
        (measuring(combine=NOT_BY_ROWS["one sum of all"][0]) + REGISTERED, "failed", "combine must take sums"),
        (measuring(statistics="[[float('nan'), 1.0]] * 3") + REGISTERED, "failed", "must be finite"),
        (with_check("raise ImportError('no')"), "failed", "cannot be used: ImportError: no"),
    ],
    ids=["sound", "combine", "statistics", "check"],
)
def test_check_plugin_computes_metrics_that_no_task_names(code, status, expected, install):
    install("bad", re.sub(r'metrics=\["exact_match", \w+\(\)\]', 'metrics=["exact_match"]', code))
    [check] = [check for check in check_plugin("bad") if check.check == METRICS_WORK]
    assert (check.task, check.status) == ("bad", status)
    assert expected in check.detail


# Specs that cannot be distinguished or recorded

BAD_SPECS = {
    "two of one name": ("(*KINDS, *KINDS)", 'two of its specs are named "share"'),
    "no name": ("(ScoreSpec(name=' ', signature='s'),)", "has no name"),
    "a text for better": ("(ScoreSpec(name='m', signature='s', higher_is_better='no'),)", "higher_is_better"),
    "fewer than none": ("(ScoreSpec(name='m', signature='s', n=-1),)", 'n of "m" is -1'),
    "more than all": ("(ScoreSpec(name='m', signature='s', n=99),)", 'n of "m" is 99'),
    "the name of another metric's": ("(ScoreSpec(name='exact_match', signature='s'),)", "has the name of one of"),
}


@pytest.mark.parametrize("specs, expected", BAD_SPECS.values(), ids=BAD_SPECS)
def test_specs_that_cannot_be_distinguished_or_recorded_are_refused(specs, expected, install, tmp_path):
    combine = "lambda sums: sums[..., :2]" if specs.startswith("(*") else RATIO
    install("bad", measuring(specs=specs, combine=combine))
    with pytest.raises(PluginError, match=re.escape(expected)):
        run_bad(tmp_path)
    assert [score.name for score in only_run(tmp_path).scores] == ["exact_match"]


def test_check_references_of_a_plugin_metric_is_called_before_the_model(install, tmp_path):
    code = CHECKED.format(check="pass").replace("def check(self)", "def check_references(self, most)")
    code = code.replace("pass", "raise ValueError(f'no more than {most - 1}')")
    install("bad", bad().replace('metrics=["exact_match", Share()]', 'metrics=["exact_match", Checked()]') + code)
    model = FakeModel(["one", "two", "three"])
    for task, metrics in (("bad", None), ("titles", ("bad/share",))):
        with pytest.raises(MetricError, match=r"cannot be used: ValueError: no more than 0"):
            lmtasks.run(task, model=model, metrics=metrics, output_dir=tmp_path / "runs")
    assert model.prompts == []
