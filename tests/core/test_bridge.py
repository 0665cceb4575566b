from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import evaluate
import numpy as np
import pytest

import lmtasks
from lmtasks import Example, Run, RunOptions, Task
from lmtasks.errors import LmtasksError, MetricError, PluginError, RunError, UnknownNameError, UsageError
from lmtasks.metrics import BUILTIN_METRICS
from lmtasks.runs.gates import Gate
from lmtasks.testing import FakeModel

OUTPUTS = (
    "The ferry leaves the harbour at nine.",
    "It comes back at six in the evening.",
    "",
    "Bread costs two euros here!",
)
REFERENCES = (
    ["The ferry leaves the harbour at nine o'clock.", "At nine the ferry leaves the harbour."],
    ["It returns at six in the evening."],
    ["Nobody was on board.", "The boat was empty.", "There was nobody on board."],
    ["Bread costs two euros here.", "Here bread costs two euros."],
)
SHAPES = {
    "texts": [texts[0] for texts in REFERENCES],
    "lists": [texts[:1] for texts in REFERENCES],
    "ragged lists": [list(texts) for texts in REFERENCES],
}
LIKELIHOODS = ("loglikelihood", "perplexity")


def installed(name: str) -> bool:
    try:
        BUILTIN_METRICS[name].check()
    except MetricError:
        return False
    return True


COMPUTED = [name for name in BUILTIN_METRICS if name not in LIKELIHOODS and installed(name)]
"""Core's metrics that can be computed from texts with what is installed."""


pytestmark = pytest.mark.usefixtures("evaluate_caches")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    tried: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        tried.append(arguments)
        raise OSError("a metric went to the network")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    yield
    assert tried == []


def make_task(**changes) -> Task:
    settings = {
        "name": "echo",
        "version": 1,
        "summary": "Echo.",
        "fields": ("text",),
        "prompts": {"plain": "Say $text"},
        "datasets": {"demo": lambda split: iter(examples(SHAPES["texts"]) if split == "test" else [])},
        "metrics": ("exact_match",),
        "language": "en",
    }
    return Task(**(settings | changes))


def examples(references: Sequence[str | Sequence[str]]) -> list[Example]:
    return [
        Example(
            id=str(number),
            inputs={"text": str(number)},
            references=(texts,) if isinstance(texts, str) else tuple(texts),
        )
        for number, texts in enumerate(references)
    ]


def scored(folder: Path, metrics, references=SHAPES["texts"], outputs=OUTPUTS, **changes):
    """Scores of lmtasks itself, without intervals."""
    task = make_task(datasets={"demo": lambda split: iter(examples(references))})
    (folder / "outputs.txt").write_text("".join(f"{text}\n" for text in outputs), encoding="utf-8")
    settings = {"predictions": folder / "outputs.txt", "metrics": metrics, "resamples": 0} | changes
    return lmtasks.score(task, **settings).scores


def as_computed(scores) -> dict[str, object]:
    """Scores as a module of evaluate returns them."""
    return {score.name: score.value for score in scores} | {
        "signatures": {score.name: score.signature for score in scores}
    }


def same(found: dict[str, object], wanted: dict[str, object]) -> None:
    assert list(found) == list(wanted)
    assert found["signatures"] == wanted["signatures"]
    numbers = [{name: value for name, value in result.items() if name != "signatures"} for result in (found, wanted)]
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-12)


def refused(error: type[LmtasksError], call: Callable[[], object], *parts: object) -> None:
    """See that a call fails in one line that has these parts."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for thing in parts:
        assert str(thing) in message


# Ours, for evaluate


def test_bridge_covers_nearly_all_builtin_metrics():
    assert {"bleu", "chrf", "chrf++", "ter", "rouge", "rouge:nostem", "exact_match", "f1"} <= set(COMPUTED)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", COMPUTED)
def test_bridge_computes_the_scores_of_lmtasks(tmp_path, name, shape):
    metric = lmtasks.as_evaluate(name, language="en")
    found = metric.compute(predictions=list(OUTPUTS), references=SHAPES[shape])
    same(found, as_computed(scored(tmp_path, name, SHAPES[shape])))
    assert all(signature for signature in found["signatures"].values())


@pytest.mark.parametrize("name", COMPUTED)
def test_bridge_add_batch_equals_compute(name):
    metric = lmtasks.as_evaluate(name)
    whole = metric.compute(predictions=list(OUTPUTS), references=SHAPES["ragged lists"])
    for start, end in ((0, 1), (1, 3), (3, 4)):
        metric.add_batch(predictions=OUTPUTS[start:end], references=SHAPES["ragged lists"][start:end])
    assert metric.compute() == whole
    for prediction, references in zip(OUTPUTS, SHAPES["ragged lists"], strict=True):
        metric.add(prediction=prediction, reference=references)
    assert metric.compute() == whole


def test_bridge_accepts_texts_after_lists():
    metric = lmtasks.as_evaluate("chrf")
    first = metric.compute(predictions=list(OUTPUTS), references=SHAPES["lists"])
    assert metric.compute(predictions=list(OUTPUTS), references=SHAPES["texts"]) == first


def test_bridge_combined_metrics_equal_single_ones():
    combined = evaluate.combine([lmtasks.as_evaluate(name) for name in COMPUTED])
    found = combined.compute(predictions=list(OUTPUTS), references=SHAPES["ragged lists"])
    shown = [value for value in found.values() if isinstance(value, float)]
    signatures = [value for value in found.values() if isinstance(value, dict)]
    alone = [
        lmtasks.as_evaluate(name).compute(predictions=list(OUTPUTS), references=SHAPES["ragged lists"])
        for name in COMPUTED
    ]
    assert shown == [value for result in alone for name, value in result.items() if name != "signatures"]
    assert signatures == [result["signatures"] for result in alone]
    # What one metric alone returns keeps its name.
    assert {"chrF", "chrF++", "TER", "exact_match"} <= set(found)


def test_bridge_combines_metrics_under_given_names():
    ours = {"strict": lmtasks.as_evaluate("exact_match"), "loose": lmtasks.as_evaluate("f1")}
    found = evaluate.combine(ours, force_prefix=True).compute(predictions=["at nine"], references=["at ten"])
    assert (found["strict_exact_match"], found["loose_f1"]) == (0, 50)
    assert set(found) == {"strict_exact_match", "strict_signatures", "loose_f1", "loose_signatures"}


def test_bridge_tokenizer_depends_on_the_stated_language():
    metric = lmtasks.as_evaluate("bleu", language="ja")
    found = metric.compute(predictions=["東京都の人口は多い"], references=["東京都の人口は多い"])
    assert found["BLEU"] == pytest.approx(100)
    assert found["signatures"]["BLEU"].endswith("|lang:ja")
    assert "|tok:char|" in found["signatures"]["BLEU"]


def test_bridge_reads_the_language_if_it_is_not_stated():
    found = lmtasks.as_evaluate("bleu").compute(predictions=["渡轮九点离开港口"], references=["渡轮九点离开港口"])
    assert found["BLEU"] == pytest.approx(100)
    assert "|tok:zh|" in found["signatures"]["BLEU"]


def test_bridge_has_a_score_for_each_language():
    found = lmtasks.as_evaluate("exact_match").compute(
        predictions=["Гавань закрыта", "错"], references=["Гавань закрыта", "渡轮九点离开港口"]
    )
    assert {name: value for name, value in found.items() if name != "signatures"} == {
        "exact_match_und-Cyrl": 100, "exact_match_zh": 0,
    }  # fmt: skip
    assert set(found["signatures"]) == set(found) - {"signatures"}


def test_bridge_accepts_metric_objects_and_plugin_metrics():
    assert lmtasks.as_evaluate(BUILTIN_METRICS["f1"]).compute(predictions=["nine"], references=["nine"])["f1"] == 100
    found = lmtasks.as_evaluate("lengths/length_ratio").compute(predictions=["ab"], references=["abcd"])
    assert found["length_ratio"] == 0.5


def test_bridge_leaves_no_files(evaluate_caches):
    lmtasks.as_evaluate("bleu").compute(predictions=["a"], references=["a"])
    assert list(evaluate_caches.rglob("lmtasks_bleu/**/*.arrow")) == []


def test_bridge_refuses_an_unknown_name():
    refused(UnknownNameError, lambda: lmtasks.as_evaluate("chfr"), "chrf")


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_bridge_refuses_likelihood_metrics(name):
    metric = lmtasks.as_evaluate(name)
    refused(MetricError, lambda: metric.compute(predictions=["a"], references=["a"]), name, "loglikelihood=True")


@pytest.mark.parametrize(
    ("name", "predictions", "references"),
    [
        # A metric each: evaluate waits a second for the lock of one that has failed.
        ("bleu", ["a", "b"], ["a"]),
        ("chrf", ["a"], [["a"], ["b"]]),
        ("ter", [1], ["a"]),
        ("f1", ["a"], [1]),
    ],
    ids=["too few references", "too many", "a number", "a number as reference"],
)
def test_bridge_refuses_inputs_that_are_not_texts(name, predictions, references):
    with pytest.raises(ValueError, match="Mismatch|don't match"):
        lmtasks.as_evaluate(name).compute(predictions=predictions, references=references)


def test_bridge_does_not_score_the_repr_of_lists():
    try:
        found = lmtasks.as_evaluate("exact_match").compute(predictions=["a", "b"], references=["a", ["b", "c"]])
    except ValueError:
        return
    assert found["exact_match"] == 100


# Modules of evaluate, for us


TEXT = 'datasets.Value("string")'
TEXTS = 'datasets.Sequence(datasets.Value("string"))'
INT = 'datasets.Value("int64")'
HITS = "sum(p in (r if isinstance(r, list) else [r]) for p, r in zip(predictions, references)) / len(references)"


def module(folder: Path, name: str, *, returns: str = "", references: str = TEXT, predictions: str = TEXT) -> str:
    """Write a module of evaluate, and return what a task calls it."""
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    returns = returns or f'{{"{name}": {HITS}, "count": len(predictions), "kind": "words"}}'
    lines = [
        "import datasets",
        "import evaluate",
        "import numpy",
        "",
        "",
        f"class {name.title()}(evaluate.Metric):",
        "    def _info(self):",
        f'        features = datasets.Features({{"predictions": {predictions}, "references": {references}}})',
        '        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)',
        "",
        "    def _compute(self, predictions, references):",
        f"        return {returns}",
    ]
    (path / f"{name}.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"evaluate:{path}"


def named(scores):
    return {score.name: score for score in scores}


def loaded(name: str) -> bool:
    return any(key.startswith("evaluate_modules.") and key.endswith(f".{name}") for key in sys.modules)


@pytest.fixture
def hits(tmp_path) -> str:
    return module(tmp_path, "hits")


def test_module_named_by_a_task_is_computed_in_a_run(tmp_path, hits):
    answers = [SHAPES["texts"][0], "wrong", SHAPES["texts"][2], ""]
    run = lmtasks.run(make_task(metrics=("exact_match", hits)), model=FakeModel(answers), output_dir=tmp_path / "runs")
    scores = named(run.scores)
    assert set(scores) == {"exact_match", "evaluate:hits", "evaluate:hits/count"}
    # On its own scale, which is not that of lmtasks.
    assert scores["exact_match"].value == 50
    assert (scores["evaluate:hits"].value, scores["evaluate:hits/count"].value) == (0.5, 4)
    for name in ("evaluate:hits", "evaluate:hits/count"):
        score = scores[name]
        assert (score.low, score.high, score.higher_is_better, score.n) == (None, None, None, 4)
        assert hits in score.unit
        assert score.signature.startswith(f"{name}|")
        assert f"|evaluate:{version('evaluate')}|" in score.signature
    assert run.record.metrics == ("exact_match", hits)
    report = (run.path / "report.md").read_text(encoding="utf-8")
    assert "| evaluate:hits |" in report
    assert lmtasks.score(run, metrics=run.record.metrics).scores == run.scores


def test_module_can_be_named_for_predictions_and_with_other_metrics(tmp_path, hits):
    scores = named(scored(tmp_path, (hits, "chrf"), outputs=SHAPES["texts"], resamples=50))
    assert scores["evaluate:hits"].value == 1
    assert (scores["evaluate:hits"].low, scores["chrF"].low) == (None, 100)


def test_module_can_be_named_by_script_or_relative_path(tmp_path, monkeypatch):
    module(tmp_path, "nearby")
    monkeypatch.chdir(tmp_path)
    for name in ("evaluate:./nearby", "evaluate:nearby", f"evaluate:{tmp_path}/nearby/nearby.py"):
        assert "evaluate:nearby" in named(scored(tmp_path, name))


def test_module_signature_depends_on_its_code(tmp_path):
    signatures = [
        named(scored(tmp_path, module(tmp_path / folder, "twin", returns=f'{{"twin": {value}}}')))["evaluate:twin"]
        for folder, value in (("a", 1), ("b", 2), ("c", 1))
    ]
    first, other, again = signatures
    assert (first.value, other.value) == (1, 2)
    assert first.signature != other.signature
    assert first.signature == again.signature


def test_module_with_several_references_gets_all(tmp_path):
    name = module(tmp_path, "several", references=TEXTS)
    [score, *_] = scored(tmp_path, name, REFERENCES, ["x", "x", "There was nobody on board.", "x"])
    assert score.value == 0.25


def test_module_with_one_reference_refuses_several(tmp_path, hits):
    refused(MetricError, lambda: scored(tmp_path, hits, REFERENCES), hits, "one reference")
    # One reference each will do.
    assert scored(tmp_path, hits, SHAPES["lists"])[0].n == 4


def test_module_gets_empty_outputs(tmp_path):
    name = module(tmp_path, "blank", returns='{"blank": predictions.count("")}')
    assert scored(tmp_path, name)[0].value == 1


def test_module_is_computed_for_each_language(tmp_path, hits):
    task = make_task(
        language=None,
        datasets={"demo": lambda split: iter(examples(["Гавань закрыта", "渡轮九点离开港口", "六点返回"]))},
    )
    (tmp_path / "outputs.txt").write_text("Гавань закрыта\n渡轮九点离开港口\nx\n", encoding="utf-8")
    scores = lmtasks.score(task, predictions=tmp_path / "outputs.txt", metrics=hits).scores
    assert {one.language: one.value for one in scores if one.name == "evaluate:hits"} == {"zh": 0.5, "und-Cyrl": 1}


# Compared


@pytest.fixture
def runs(tmp_path, hits) -> list[Run]:
    return [
        lmtasks.run(
            make_task(metrics=(hits, "exact_match")), model=FakeModel(list(answers)), output_dir=tmp_path / "runs"
        )
        for answers in (SHAPES["texts"], OUTPUTS)
    ]


def test_compare_reports_that_a_module_has_no_test(runs, hits):
    settings = {"resamples": 10, "trials": 10}
    [comparison] = lmtasks.compare(*runs, metrics=(hits, "exact_match"), **settings)
    scores = named(comparison.scores)
    score = scores["evaluate:hits"]
    assert (score.baseline, score.candidate, score.difference) == (1, 0, -1)
    assert {score.low, score.high, score.p_bootstrap, score.p_randomization, score.p_corrected} == {None}
    assert (score.outcome, scores["evaluate:hits/count"].outcome) == ("not tested", "same")
    assert scores["exact_match"].p_randomization is not None
    # What is not tested does not make the tests of the rest harder.
    assert scores["exact_match"].p_corrected == scores["exact_match"].p_randomization


def test_compare_by_a_module_only_has_no_test(runs, tmp_path):
    alone = module(tmp_path, "alone", returns=f'{{"alone": {HITS}}}')
    [comparison] = lmtasks.compare(*runs, metrics=(alone,), resamples=10, trials=10)
    assert comparison.verdict.startswith("Not tested")
    assert (comparison.changed_by, comparison.changed) == (None, ())
    refused(UsageError, lambda: Gate.parse("evaluate:alone drops").failing(comparison), "evaluate:alone drops by")
    assert Gate.parse("evaluate:alone drops by 0.5").failing(comparison)
    assert Gate.parse("evaluate:alone drops by 1").failing(comparison) is None
    [comparison] = lmtasks.compare(runs[0], runs[0], metrics=(alone,), resamples=10, trials=10)
    assert comparison.verdict == "The runs score the same."


def test_compare_adapters_uses_a_module_named_by_the_task(tmp_path, hits):
    # The task is the caller's own code, and what it names is not read back from the run folders.
    options = RunOptions(output_dir=tmp_path / "runs")
    model = FakeModel(lambda prompt: SHAPES["texts"][0])
    [comparison] = lmtasks.api.compare_adapters(
        make_task(metrics=(hits,)), ["none"], options, model=model, resamples=10, trials=10
    )
    assert {score.name: score.baseline for score in comparison.scores} == {
        "evaluate:hits": 0.25,
        "evaluate:hits/count": 4,
    }


# Named by a file of data: never loaded


@pytest.fixture
def gift(tmp_path) -> Gift:
    """A module that leaves a trace when it is imported, and runs whose folders name it."""
    name = module(tmp_path, "gift")
    script = tmp_path / "gift" / "gift.py"
    trace = tmp_path / "trace"
    script.write_text(f"open({str(trace)!r}, 'w').close()\n" + script.read_text(encoding="utf-8"), encoding="utf-8")
    runs = []
    for answers in (OUTPUTS, SHAPES["texts"]):
        run = lmtasks.run(make_task(), model=FakeModel(list(answers)), output_dir=tmp_path / "runs")
        record = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
        (run.path / "run.json").write_text(json.dumps(record | {"metrics": ["exact_match", name]}), encoding="utf-8")
        runs.append(Run(run.path))
    return Gift(name, trace, runs)


@dataclass
class Gift:
    name: str
    trace: Path
    runs: list[Run]


BY_A_FOLDER = {
    "score": lambda runs, **named: lmtasks.score(runs[0], **named),
    "score by the folder": lambda runs, **named: lmtasks.score(runs[0].path, **named),
    "compare": lambda runs, **named: lmtasks.compare(*runs, resamples=10, trials=10, **named),
}


@pytest.mark.parametrize("how", BY_A_FOLDER.values(), ids=BY_A_FOLDER)
def test_module_named_by_a_run_folder_is_loaded_only_if_the_user_names_it(gift, how):
    record = gift.runs[0].path / "run.json"
    refused(MetricError, lambda: how(gift.runs), record, "metrics=['exact_match', ")
    assert not gift.trace.exists()
    assert how(gift.runs, metrics=("exact_match", gift.name))
    assert gift.trace.exists()


@pytest.mark.parametrize("name", ["evaluate:accuracy", "evaluate:org/metric", "evaluate:", "evaluate:../x.py"])
def test_module_named_by_a_run_folder_is_not_searched_on_the_hub(gift, name):
    record = gift.runs[0].record.to_json() | {"metrics": [name]}
    (gift.runs[0].path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    # The fixture no_network sees that nothing is asked for.
    refused(MetricError, lambda: lmtasks.score(gift.runs[0].path), name, "metrics=")


@pytest.mark.parametrize(
    "name", [" evaluate:{}", "Evaluate:{}", "EVALUATE:{}", "evaluate :{}", "{}/gift.py", "./gift/gift"]
)
def test_module_prefix_in_other_case_is_an_unknown_metric(gift, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = gift.runs[0].record.to_json() | {"metrics": [name.format(tmp_path / "gift")]}
    (gift.runs[0].path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    refused(UnknownNameError, lambda: lmtasks.score(gift.runs[0].path))
    assert not gift.trace.exists()


@pytest.mark.parametrize("metrics", ["rouge", 3, {"rouge": 1}, [["rouge"]], [None], [{"name": "rouge"}]])
def test_run_folder_metrics_that_are_not_names_are_refused(gift, metrics):
    file = gift.runs[0].path / "run.json"
    file.write_text(json.dumps(gift.runs[0].record.to_json() | {"metrics": metrics}), encoding="utf-8")
    refused(RunError, lambda: lmtasks.score(gift.runs[0].path), f"{file}: damaged (metrics")


def test_run_folder_with_unknown_metric_is_refused_in_one_line(gift):
    file = gift.runs[0].path / "run.json"
    file.write_text(json.dumps(gift.runs[0].record.to_json() | {"metrics": ["a\nb"]}), encoding="utf-8")
    refused(UnknownNameError, lambda: lmtasks.score(gift.runs[0].path))
    assert lmtasks.score(gift.runs[0].path, metrics="exact_match").scores


@pytest.mark.parametrize(
    "name", ["{}/task.py", "./task.py", "task.py", "./task.yaml", "{}/task.yml", "task.PY", "a\nb"]
)
def test_run_folder_task_is_never_loaded_as_a_plugin_file(gift, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in ("task.py", "task.yaml", "task.yml", "task.PY"):
        (tmp_path / file).write_text(f"open({str(gift.trace)!r}, 'w').close()\n", encoding="utf-8")
    record = gift.runs[0].record.to_json()
    record["task"] = record["task"] | {"name": name.format(tmp_path)}
    (gift.runs[0].path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert lmtasks.score(gift.runs[0].path, metrics="exact_match").scores
    assert not gift.trace.exists()


def test_run_folder_without_metrics_is_refused(gift):
    file = gift.runs[0].path / "run.json"
    record = {key: value for key, value in gift.runs[0].record.to_json().items() if key != "metrics"}
    file.write_text(json.dumps(record), encoding="utf-8")
    refused(RunError, lambda: lmtasks.score(gift.runs[0].path), f"{file}: damaged (metrics: missing)")


# Modules that cannot be


@pytest.mark.parametrize("named_by", ["the task", "the run"])
def test_missing_module_is_refused_before_the_model_is_loaded(tmp_path, monkeypatch, named_by):
    monkeypatch.setattr("lmtasks.api.running.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    name = f"evaluate:{tmp_path}/nowhere"
    task = make_task(metrics=(name,)) if named_by == "the task" else make_task()
    changes = {"metrics": ("chrf", name)} if named_by == "the run" else {}
    refused(MetricError, lambda: lmtasks.run(task, output_dir=tmp_path / "runs", **changes), name, "evaluate:PATH")
    refused(MetricError, lambda: scored(tmp_path, name), name)
    assert not (tmp_path / "runs").exists()


def test_module_that_cannot_be_imported_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("lmtasks.api.running.load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    name = module(tmp_path, "broken")
    script = tmp_path / "broken" / "broken.py"
    script.write_text("raise RuntimeError('one\\ntwo')\n" + script.read_text(encoding="utf-8"), encoding="utf-8")
    refused(MetricError, lambda: lmtasks.run(make_task(metrics=(name,))), name, "RuntimeError: one")


@pytest.mark.parametrize(
    "features",
    [
        {"predictions": INT, "references": INT},
        {"predictions": INT},
        {"references": INT},
        {"predictions": TEXTS, "references": TEXT},
    ],
    ids=["numbers", "predictions that are numbers", "references that are numbers", "several predictions"],
)
def test_module_that_does_not_accept_texts_is_refused(tmp_path, features):
    name = module(tmp_path, "numbers", **features)
    refused(MetricError, lambda: scored(tmp_path, name), name, "texts")


def test_module_that_does_not_accept_texts_is_refused_before_the_model(tmp_path, monkeypatch):
    loads = []
    monkeypatch.setattr("lmtasks.api.running.load_model", lambda *_, **__: loads.append(1) or FakeModel(list(OUTPUTS)))
    name = module(tmp_path, "early", predictions=INT, references=INT)
    refused(MetricError, lambda: lmtasks.run(make_task(metrics=(name,)), output_dir=tmp_path / "runs"), name)
    assert loads == []


@pytest.mark.parametrize("returns", ["{}", '{"a": "b", "c": [1]}'])
def test_module_that_returns_no_number_is_refused(tmp_path, returns):
    name = module(tmp_path, f"words{len(returns)}", returns=returns)
    refused(MetricError, lambda: scored(tmp_path, name), name, "no number")


def test_module_that_fails_is_named_and_works_the_next_time(tmp_path):
    name = module(tmp_path, "picky", returns='{"picky": 1 / predictions.count("good")}')
    refused(PluginError, lambda: scored(tmp_path, name), name, "ZeroDivisionError")
    for outputs in (["good"] * 4, ["good", "good", "x", "y"]):
        assert scored(tmp_path, name, outputs=outputs)[0].value == 1 / outputs.count("good")


def test_module_error_of_many_lines_becomes_one_line(tmp_path):
    name = module(tmp_path, "wordy", returns='exec("raise ValueError(chr(10).join(predictions))", locals())')
    refused(PluginError, lambda: scored(tmp_path, name), name, "ValueError", OUTPUTS[0])


def test_module_may_return_numpy_numbers(tmp_path):
    name = module(tmp_path, "arrays", returns='{"arrays": numpy.float32(0.5), "n": numpy.int64(4), "plain": 0.5}')
    scores = named(scored(tmp_path, name))
    assert set(scores) == {"evaluate:arrays", "evaluate:arrays/n", "evaluate:arrays/plain"}
    assert scores["evaluate:arrays"].value == np.float32(0.5)


def test_module_without_a_name_is_refused(tmp_path):
    with pytest.raises(LmtasksError) as caught:
        scored(tmp_path, "evaluate:")
    assert "IndexError" not in str(caught.value)


# Loaded only when named


def test_evaluate_is_imported_only_for_a_module(tmp_path):
    name = module(tmp_path, "lazy")
    task = make_task(metrics=(name,))
    assert not loaded("lazy")
    run = lmtasks.run(task, model=FakeModel(list(OUTPUTS)), output_dir=tmp_path / "runs", metrics="exact_match")
    assert scored(tmp_path, ("chrf", "exact_match"))
    assert lmtasks.score(run).scores
    assert not loaded("lazy")
    assert lmtasks.score(run, metrics=name).scores
    assert loaded("lazy")


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [(["a", "b"], [[], ["b"]], r"references\[0\] is empty"), ([], [], "no predictions")],
)
def test_bridge_refuses_examples_without_references(predictions, references, message):
    with pytest.raises(MetricError, match=message):
        lmtasks.as_evaluate("f1").compute(predictions=predictions, references=references)


def test_module_with_one_reference_is_refused_before_the_model_runs(tmp_path):
    name = module(tmp_path, "single")
    model = FakeModel(list(OUTPUTS))
    several = [replace(example, references=("good", "better")) for example in make_task().datasets["demo"].read("test")]
    task = make_task(metrics=(name,), datasets={"demo": lambda split: iter(several if split == "test" else [])})
    with pytest.raises(MetricError, match="one reference per example"):
        lmtasks.run(task, model=model, output_dir=tmp_path / "runs")
    assert model.prompts == []
