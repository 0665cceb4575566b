from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from command_line import Outcome, one_line

import lmtasks
from lmtasks import Run, ScoreOptions
from lmtasks.cli.main import cli
from lmtasks.testing import FakeModel

N = 12
REFERENCES = [f"the ferry number {n} leaves the old harbour at nine" for n in range(N)]
GOOD = REFERENCES
HALF = ["no idea" if n % 2 else text for n, text in enumerate(REFERENCES)]
NEARLY = [text.replace("leaves", "left") for text in REFERENCES]
BAD = ["no idea"] * N
TASK = "summarization/headline"
LOAD_MODEL = lmtasks.load_model


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmtasks.api.running.load_model", lambda *_, **__: pytest.fail("a model was loaded"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"id": str(n), "text": f"text {n}", "references": [text]} for n, text in enumerate(REFERENCES)]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """Run folders of outputs, scored alike; no test changes them."""
    folder = tmp_path_factory.mktemp("outputs")
    rows = [{"id": str(n), "text": f"text {n}", "references": [text]} for n, text in enumerate(REFERENCES)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    made = {}
    for name, texts in {"good": GOOD, "half": HALF, "nearly": NEARLY, "bad": BAD}.items():
        scored = lmtasks.score(
            TASK,
            data=folder / "data.jsonl",
            predictions=lines(folder / f"{name}.txt", texts),
            output_dir=folder / "runs",
            metrics=("chrf", "exact_match"),
            resamples=50,
        )
        assert scored.path is not None
        made[name] = scored.path
    return made


def alone(*arguments: object, before: str = "") -> Outcome:
    """The command line in a process of its own, where logging is not pytest's; `before` is what runs there first."""
    command = [sys.executable, "-c", f"{before}\nfrom lmtasks.cli.main import main; main()", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    return Outcome(done.returncode, done.stdout, done.stderr)


WITHOUT_TEMPORARY_FILES = """
import tempfile
def refuse(*_, **__):
    raise FileNotFoundError(2, "No usable temporary directory printed in ['/tmp', '/var/tmp']")
tempfile.TemporaryFile = tempfile.NamedTemporaryFile = tempfile.mkdtemp = tempfile.mkstemp = refuse
"""


def only_json(outcome: Outcome):
    """What stdout says, which is JSON by the standard: it knows neither NaN nor Infinity."""
    return json.loads(outcome.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


# Help


def help_of(command: str) -> str:
    """Return the help of a command without line breaks, those behind hyphens included."""
    result = CliRunner().invoke(cli, [command, "--help"], prog_name="lmtasks")
    assert result.exit_code == 0
    return " ".join(re.sub(r"(?<=\w-)\n +", "", result.output).split())


def options_of(command: str) -> list[click.Option]:
    loaded = cli.get_command(click.Context(cli), command)
    assert loaded is not None
    return [parameter for parameter in loaded.params if isinstance(parameter, click.Option)]


@pytest.mark.parametrize("command", ["score", "compare"])
def test_help_describes_every_flag(command):
    text = help_of(command)
    for option in options_of(command):
        assert option.help, option.name
        for flag in option.opts:
            assert flag in text
        assert " ".join(option.help.split()) in text


def test_score_has_a_flag_for_every_option():
    flags = {option.name for option in options_of("score")}
    assert {field.name for field in dataclasses.fields(ScoreOptions)} <= flags


def test_compare_has_a_flag_for_every_option():
    settings = {
        name
        for name, parameter in inspect.signature(lmtasks.compare).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert settings <= {option.name for option in options_of("compare")}


@pytest.mark.parametrize("command", ["score", "compare"])
def test_flags_have_the_defaults_of_python(command):
    if command == "score":
        expected = {field.name: field.default for field in dataclasses.fields(ScoreOptions)}
    else:
        expected = {name: item.default for name, item in inspect.signature(lmtasks.compare).parameters.items()}
    flags = {option.name: option for option in options_of(command)}
    for name in {"resamples", "seed", "trials"} & set(expected):
        assert f"[default: {expected[name]}]" in f"{flags[name].help} [default: {flags[name].default}]"


def test_compare_help_describes_gates_and_exit_codes():
    text = help_of("compare")
    for expected in ("rougeL drops", "TER rises", "BLEU drops by 0.5", "code 3"):
        assert expected in text


def test_run_help_describes_log_likelihoods():
    assert "--loglikelihood" in help_of("run")


def test_help_lists_score_and_compare():
    text = " ".join(CliRunner().invoke(cli, ["--help"]).output.split())
    assert "no model is loaded" in text
    assert "Compare runs on the same examples, with significance tests." in text


def test_score_help_names_the_column_of_outputs():
    [mapping] = [option.help for option in options_of("score") if option.name == "columns"]
    assert "prediction" in mapping


def test_compare_help_has_its_own_default_of_metrics():
    [metrics] = [option.help for option in options_of("compare") if option.name == "metrics"]
    assert "[default: the task's]" not in metrics


def test_compare_names_the_smallest_number_of_resamples(call, runs):
    outcome = call("compare", runs["good"], runs["bad"], "--resamples", "0")
    assert (outcome.code, one_line(outcome)) == (2, "lmtasks: --resamples must be a whole number of at least 2, not 0")


# Score


def test_score_prints_a_table_with_intervals_and_signatures(call, data):
    predictions = lines(data.with_name("system.txt"), HALF)
    outcome = call(
        "score", TASK, "--data", data.name, "--predictions", predictions.name, "--metrics", "chrf,exact_match"
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert re.match(rf"{TASK}, outputs of system\.txt: 12 .* of data\.jsonl\n", outcome.out)
    assert re.search(r"^score +value +95% interval +language +n$", outcome.out, re.MULTILINE)
    scores = {
        score.name: score
        for score in lmtasks.score(TASK, data=data, predictions=predictions, metrics=("chrf", "exact_match")).scores
    }
    for name, score in scores.items():
        row = rf"^{name} +{score.value:.2f} +{score.low:.2f} to {score.high:.2f} +\S+ +12$"
        assert re.search(row, outcome.out, re.MULTILINE)
        assert f"{name}: {score.signature.partition('|')[2]}\n" in outcome.out
    assert "times as long as the references" in outcome.out
    assert not Path("runs").exists()


def test_score_without_resamples_prints_no_interval(call, data):
    lines(data.with_name("system.txt"), HALF)
    outcome = call("score", TASK, "--data", "data.jsonl", "--predictions", "system.txt", "--resamples", "0")
    assert outcome.code == 0
    assert "interval" not in outcome.out
    assert re.search(r"^chrF +\d+\.\d\d +\S+ +12$", outcome.out, re.MULTILINE)


def test_score_json_has_all_digits_and_nothing_else(call, data):
    predictions = lines(data.with_name("system.txt"), HALF)
    flags = ("--data", "data.jsonl", "--predictions", "system.txt", "--resamples", "80", "--seed", "4")
    outcome = call("score", TASK, *flags, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    result = only_json(outcome)
    scored = lmtasks.score(TASK, data=data, predictions=predictions, resamples=80, seed=4)
    assert [lmtasks.Score(**score) for score in result["scores"]] == scored.scores
    assert [lmtasks.Score(**score) for score in result["output_checks"]] == scored.output_checks
    assert any(score["value"] != round(score["value"], 4) for score in result["scores"])
    assert all(score["signature"] for score in result["scores"])
    assert result["run"] is None
    assert result["metrics"] == ["rouge", "chrf"]
    assert result["task"]["name"] == TASK
    assert (result["data"]["name"], result["data"]["count"]) == ("data.jsonl", N)
    assert result["model"]["name"] == "system.txt"
    assert (result["intervals"]["resamples"], result["intervals"]["seed"]) == (80, 4)
    assert result["counts"]["scored"] == N


def test_score_applies_all_flags(call, data):
    rows = [{"id": n, "split": split, "de": "Hafen", "x": "y"} for n, split in enumerate(("dev", "dev", "test"))]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (data.with_name("system.csv")).write_text("id,system 2\n0,Hafen\n")
    flags = ("--split", "dev", "--limit", "1", "--references", "de", "--language", "de", "--map", "prediction=system 2")
    outcome = call("score", "qa", "--data", "data.jsonl", "--predictions", "system.csv", *flags, "--json")
    result = only_json(outcome)
    assert [(score["name"], score["value"], score["n"]) for score in result["scores"]] == [
        ("exact_match", 100, 1), ("f1", 100, 1),
    ]  # fmt: skip
    assert result["scores"][0]["signature"].endswith("|lang:de")
    assert result["data"] | {"sha256": "", "file_sha256": ""} == {
        "name": "data.jsonl", "split": "dev", "count": 1, "sha256": "", "file_sha256": "", "limit": 1,
        "columns": {"references": "de"}, "language": "de",
    }  # fmt: skip


def test_score_prints_the_scores_of_a_run_again(call, runs):
    outcome = call("score", runs["half"], "--resamples", "50")
    assert (outcome.code, outcome.err) == (0, "")
    for score in Run(runs["half"]).scores:
        row = rf"^{score.name} +{score.value:.2f} +{score.low:.2f} to {score.high:.2f} "
        assert re.search(row, outcome.out, re.MULTILINE)
    assert outcome.out.endswith(f"run: {runs['half']} (the scores in it are not changed)\n")
    result = only_json(call("score", runs["half"], "--metrics", "ter", "--json"))
    assert [score["name"] for score in result["scores"]] == ["TER"]
    assert result["run"] == str(runs["half"])


def test_score_writes_a_run_folder_for_compare(call, data):
    folders = []
    for name, texts in (("good", GOOD), ("bad", BAD)):
        lines(data.with_name(f"{name}.txt"), texts)
        flags = ("--data", "data.jsonl", "--predictions", f"{name}.txt", "--metrics", "exact_match")
        outcome = call("score", TASK, *flags, "--output-dir", "elsewhere")
        folders.append(Path(outcome.out.rpartition("run: ")[2].strip()))
        assert folders[-1].parent == Path("elsewhere")
        assert (folders[-1] / "report.md").is_file()
    outcome = call("compare", *folders)
    assert (outcome.code, outcome.err) == (0, "")
    assert "Verdict: B is significantly worse than A in exact_match." in outcome.out


WRONG_SCORE = [
    (["score"], 2, "Missing argument 'TASK|RUN'"),
    (["score", "sumarization", "--predictions", "system.txt"], 2, "Did you mean summarization"),
    (["score", TASK], 2, "--predictions"),
    (["score", "no such run"], 2, "--predictions"),
    (["score", "."], 1, "not a run folder"),
    (["score", TASK, "--predictions", "nowhere.txt", "--data", "data.jsonl"], 1, "nowhere.txt: no such file"),
    (["score", TASK, "--predictions", "short.txt", "--data", "data.jsonl"], 1, "short.txt: 1 line"),
    (["score", TASK, "--predictions", "system.txt", "--data", "nowhere.jsonl"], 1, "nowhere.jsonl"),
    (["score", TASK, "--predictions", "system.txt", "--data", "data.jsonl", "--references", "x"], 1, 'no column "x"'),
    (["score", TASK, "--predictions", "system.txt", "--data", "data.jsonl", "--metrics", "rogue"], 2, "rouge"),
    (["score", TASK, "--predictions", "system.txt", "--data", "data.jsonl", "--metrics", "perplexity"], 2, "--logl"),
    (["score", TASK, "--predictions", "system.txt", "--data", "data.jsonl", "--metrics", "evaluate:/no"], 1, "/no"),
    (["score", TASK, "--predictions", "system.txt", "--data", "data.jsonl", "--resamples", "1"], 2, "at least 2"),
    (["score", TASK, "--predictions", "system.txt", "--data", "data.jsonl", "--resamples", "-1"], 2, "--resamples"),
    (["score", TASK, "--predictions", "system.txt", "--data", "data.jsonl", "--limit", "0"], 2, "--limit"),
    (["score", TASK, "--predictions", "system.txt", "--data", "data.jsonl", "--language", "Deutsch"], 2, "BCP 47"),
    (["score", TASK, "--predictions", "system.txt", "--data", "data.jsonl", "--output-dir", "data.jsonl"], 2, "--outp"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "expected"), WRONG_SCORE, ids=[" ".join(wrong[0]) for wrong in WRONG_SCORE]
)
def test_score_refuses_wrong_arguments(call, data, arguments, code, expected):
    lines(data.with_name("system.txt"), GOOD)
    lines(data.with_name("short.txt"), GOOD[:1])
    outcome = call(*arguments)
    assert outcome.code == code
    assert expected in outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    if not outcome.err.startswith("Usage: "):
        one_line(outcome)


@pytest.mark.parametrize("flag", [("--data", "data.jsonl"), ("--split", "dev"), ("--limit", "3"), ("--language", "de")])
def test_score_refuses_data_flags_with_a_run(call, runs, flag):
    outcome = call("score", runs["good"], *flag)
    assert outcome.code == 2
    assert flag[0] in one_line(outcome)


@pytest.mark.parametrize(
    "flag", [("--references", "gold"), ("--map", "references=gold"), ("--output-dir", "elsewhere")]
)
def test_score_names_a_refused_flag_as_the_user_wrote_it(call, runs, flag):
    assert flag[0] in one_line(call("score", runs["good"], *flag))


@pytest.mark.parametrize("command", ["score", "compare"])
def test_score_refuses_a_module_of_a_run_folder_with_a_remedy(call, runs, tmp_path, command):
    script = tmp_path / "gift" / "m" / "m.py"
    script.parent.mkdir(parents=True)
    script.write_text("open('trace', 'w').close()")
    folders = []
    for name in ("good", "bad"):
        folders.append(Path(shutil.copytree(runs[name], tmp_path / name)))
        record = json.loads((folders[-1] / "run.json").read_text())
        (folders[-1] / "run.json").write_text(json.dumps(record | {"metrics": ["rouge", "evaluate:gift/m"]}))
    arguments = (command, *folders[: 1 if command == "score" else 2])
    outcome = call(*arguments)
    assert outcome.code == 1
    assert one_line(outcome) == (
        f"lmtasks: {folders[0] / 'run.json'}: evaluate:gift/m is a module of Python code, which is never loaded because"
        " a file names it; if you trust it, name it yourself: --metrics rouge,evaluate:gift/m"
    )
    assert not Path("trace").exists()
    assert call(*arguments, "--metrics", "rouge").code == 0
    assert not Path("trace").exists()


def test_score_refuses_predictions_for_a_run(call, runs, data):
    lines(data.with_name("system.txt"), GOOD)
    line = one_line(call("score", runs["good"], "--predictions", "system.txt"))
    assert "unknown task" not in line


def test_score_needs_no_folder_for_temporary_files(data, tmp_path):
    # The package that identifies languages unpacks its model into one; what it tells is a mere doubt.
    texts = lines(tmp_path / "outputs.txt", NEARLY)
    usual, without = (
        alone("score", TASK, "--data", data, "--predictions", texts, "--json", before=before)
        for before in ("", WITHOUT_TEMPORARY_FILES)
    )
    assert (usual.code, without.code) == (0, 0)
    assert only_json(without)["scores"] == only_json(usual)["scores"]
    assert "wrong_language" in usual.out
    assert "wrong_language" not in without.out
    [line] = without.err.splitlines()
    assert "languages cannot be identified (FileNotFoundError: " in line


# Compare


def test_compare_prints_scores_tests_verdict_and_changes(call, runs):
    outcome = call("compare", runs["nearly"], runs["half"])
    assert (outcome.code, outcome.err) == (0, "")
    [comparison] = lmtasks.compare(runs["nearly"], runs["half"])
    head, table, verdict, *rest = outcome.out.split("\n\n")
    assert head.splitlines() == [
        f"A  {runs['nearly']}: outputs of nearly.txt",
        f"B  {runs['half']}: outputs of half.txt",
        f"12 examples of {runs['good'].parents[1] / 'data.jsonl'}",
    ]
    assert table.splitlines()[0].split() == [
        "score", "A", "B", "B", "-", "A", "95%", "interval", "p", "p", "corrected", "B", "is",
    ]  # fmt: skip
    for row, score in zip(table.splitlines()[1:], comparison.scores, strict=True):
        cells = re.split(r"\s{2,}", row)
        assert cells == [
            score.name, f"{score.baseline:.2f}", f"{score.candidate:.2f}", f"{score.difference:+.2f}",
            f"{score.low:+.2f} to {score.high:+.2f}", f"{score.p_randomization:.4f}", f"{score.p_corrected:.4f}",
            score.outcome,
        ]  # fmt: skip
    assert {score.outcome for score in comparison.scores} <= {"better", "worse", "no difference shown"}
    assert verdict == f"Verdict: {comparison.verdict}"
    assert "length_ratio" in rest[1]
    assert f"Changed most, by {comparison.changed_by}:" in rest
    for example in comparison.changed:
        [block] = [block for block in rest if block.startswith(f"{example.id}: ")]
        first, second = example.predictions
        assert block.splitlines()[1:] == [f"  A  {first}", f"  B  {second}"]
    *_, method = rest
    assert "10000 trials" in method
    assert "1000 resamples" in method
    assert "Holm for 2 tests" in method
    for score in comparison.scores:
        assert score.signature.partition("|")[2] in method


def test_compare_of_a_run_with_itself_finds_no_difference(call, runs):
    outcome = call("compare", runs["half"], runs["half"], "--trials", "10", "--resamples", "10")
    assert outcome.code == 0
    assert "\nVerdict: The runs score the same.\n" in outcome.out
    assert re.search(r"^chrF +(\d+\.\d\d) +\1 +\+0\.00 +\+0\.00 to \+0\.00 +1\.0000 +1\.0000 +same$", outcome.out, re.M)
    assert "Changed most" not in outcome.out


def test_compare_marks_empty_outputs_and_shortens_long_ones(call, data):
    for name, texts in (("long", ["word " * 100] * N), ("empty", [""] * N)):
        lines(data.with_name(f"{name}.txt"), texts)
        flags = ("--data", "data.jsonl", "--predictions", f"{name}.txt", "--resamples", "0", "--metrics", "chrf")
        assert call("score", TASK, *flags, "--output-dir", name).code == 0
    [long], [empty] = (list(Path(name).iterdir()) for name in ("long", "empty"))
    outcome = call("compare", long, empty, "--trials", "10", "--resamples", "10")
    assert "\n  B  (empty)\n" in outcome.out
    shown = re.findall(r"^  A  (.*)$", outcome.out, re.MULTILINE)
    assert all(len(text) <= 300 for text in shown)
    assert shown


def test_compare_json_has_all_digits_and_nothing_else(call, runs):
    flags = ("--trials", "300", "--resamples", "60", "--seed", "5")
    outcome = call("compare", runs["good"], runs["half"], runs["nearly"], *flags, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    result = only_json(outcome)
    assert result["runs"] == [str(runs[name]) for name in ("good", "half", "nearly")]
    tests = result["tests"]
    assert (tests["resamples"], tests["trials"], tests["seed"], tests["alpha"]) == (60, 300, 5, 0.05)
    assert tests["correction"].startswith("Holm")
    assert result["failed"] == []
    comparisons = lmtasks.compare(runs["good"], runs["half"], runs["nearly"], trials=300, resamples=60, seed=5)
    assert len(result["comparisons"]) == 2
    for printed, comparison in zip(result["comparisons"], comparisons, strict=True):
        assert (printed["baseline"], printed["candidate"]) == (
            str(comparison.baseline.path),
            str(comparison.candidate.path),
        )
        assert (printed["n"], printed["verdict"], printed["changed_by"]) == (
            N,
            comparison.verdict,
            comparison.changed_by,
        )
        for name in ("scores", "output_checks"):
            assert printed[name] == [
                dataclasses.asdict(score) | {"outcome": score.outcome} for score in getattr(comparison, name)
            ]
        assert [example["id"] for example in printed["changed"]] == [example.id for example in comparison.changed]
    chrf = result["comparisons"][0]["scores"][0]
    assert chrf["difference"] != round(chrf["difference"], 4)


def test_compare_json_has_no_warnings_on_stdout(call, runs, data):
    lines(data.with_name("system.txt"), GOOD)
    flags = ("--data", "data.jsonl", "--predictions", "system.txt", "--resamples", "0", "--output-dir", "other")
    assert call("score", TASK, *flags, "--metrics", "chrf,f1").code == 0
    [other] = Path("other").iterdir()
    outcome = alone("compare", runs["good"], other, "--trials", "10", "--resamples", "10", "--json")
    assert outcome.code == 0
    assert [score["name"] for score in only_json(outcome)["comparisons"][0]["scores"]] == ["chrF"]
    [warning] = outcome.err.splitlines()
    assert warning.startswith("lmtasks: ")
    assert "exact_match, f1" in warning


def test_compare_computes_other_metrics(call, runs):
    outcome = call("compare", runs["good"], runs["bad"], "--metrics", "f1", "--trials", "2000", "--json")
    [comparison] = only_json(outcome)["comparisons"]
    assert [(score["name"], score["difference"]) for score in comparison["scores"]] == [("f1", -100)]
    assert comparison["verdict"] == "B is significantly worse than A in f1."


# Gates


GATES = [
    (("good", "bad"), ["exact_match drops"], [0]),
    (("good", "bad"), ["chrF drops by 5", "exact_match drops by 100"], [0]),
    (("good", "bad"), ["chrF drops by 5", "EXACT_MATCH drops"], [0, 1]),
    (("bad", "good"), ["exact_match drops", "chrF drops by 0"], []),
    (("bad", "good"), ["exact_match rises"], [0]),
    (("good", "good"), ["exact_match drops", "chrF drops by 0"], []),
    (("good", "bad"), ["length_ratio drops"], [0]),
    (("good", "bad"), ["empty rises by 1"], []),
]


@pytest.mark.parametrize(("pair", "gates", "failing"), GATES, ids=str)
def test_gate_that_is_not_met_has_exit_code_3(call, runs, pair, gates, failing):
    flags = [word for gate in gates for word in ("--fail-if", gate)]
    arguments = ("compare", *(runs[name] for name in pair), "--trials", "2000", "--resamples", "10", *flags)
    text, as_json = call(*arguments), call(*arguments, "--json")
    assert text.code == as_json.code == (3 if failing else 0)
    assert "Verdict: " in text.out
    expected = text.err.splitlines()
    assert expected == as_json.err.splitlines()
    assert len(expected) == len(failing)
    for line, at in zip(expected, failing, strict=True):
        assert line.lower().startswith(f"lmtasks: {runs[pair[1]]}: {' '.join(gates[at].split()[:2])} by ".lower())
    assert [f"lmtasks: {said}" for said in only_json(as_json)["failed"]] == expected


def test_gate_applies_to_every_run_but_the_first(call, runs):
    flags = ("--trials", "10", "--resamples", "10", "--fail-if", "chrF drops by 20")
    outcome = call("compare", runs["good"], runs["nearly"], runs["bad"], runs["half"], *flags)
    assert outcome.code == 3
    assert [line.split(": ")[1] for line in outcome.err.splitlines()] == [str(runs["bad"]), str(runs["half"])]
    assert outcome.out.count("\nVerdict: ") == 3
    assert "Holm for 6 tests" in outcome.out


def test_gate_passes_a_change_that_is_not_significant(call, runs, data):
    lines(data.with_name("once.txt"), [*GOOD[:-1], "no idea"])
    flags = ("--data", "data.jsonl", "--predictions", "once.txt", "--metrics", "chrf,exact_match", "--resamples", "0")
    assert call("score", TASK, *flags, "--output-dir", "once").code == 0
    [once] = Path("once").iterdir()
    for gate, code in (("exact_match drops", 0), ("exact_match drops by 5", 3)):
        assert call("compare", runs["good"], once, "--fail-if", gate, "--trials", "500").code == code


WRONG_COMPARE = [
    ([], 2, "Missing argument 'RUN RUN... | TASK'"),
    (["good"], 2, "at least two runs"),
    (["good", "nowhere"], 1, "not a run folder"),
    (["good", "bad", "--fail-if", "chrF falls"], 2, '"chrF falls" is not a condition'),
    (["good", "nowhere", "--fail-if", "chrF falls"], 2, '"chrF falls" is not a condition'),
    (["good", "bad", "--trials", "9", "--fail-if", "chrf2 drops"], 2, "the comparison has chrF, exact_match"),
    (["good", "bad", "--metrics", "chfr"], 2, "Did you mean chrf"),
    (["good", "bad", "--metrics", "perplexity"], 1, "--loglikelihood"),
    (["good", "bad", "--resamples", "1"], 2, "--resamples must be a whole number of at least 2, not 1"),
    (["good", "bad", "--trials", "0"], 2, "--trials"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "expected"), WRONG_COMPARE, ids=[" ".join(wrong[0]) or "nothing" for wrong in WRONG_COMPARE]
)
@pytest.mark.parametrize("flag", [[], ["--json"]], ids=["text", "json"])
def test_compare_refuses_wrong_arguments(call, runs, arguments, code, expected, flag):
    outcome = call("compare", *(runs.get(word, word) for word in arguments), *flag)
    assert outcome.code == code
    assert expected in outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    if not outcome.err.startswith("Usage: "):
        one_line(outcome)


def test_compare_refuses_runs_on_other_data_in_one_line(call, runs, data):
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    rows[3]["references"] = ["something else"]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    lines(data.with_name("system.txt"), GOOD)
    flags = ("--data", "data.jsonl", "--predictions", "system.txt", "--resamples", "0", "--output-dir", "other")
    call("score", TASK, *flags, "--metrics", "chrf")
    [other] = Path("other").iterdir()
    outcome = call("compare", runs["good"], other)
    assert outcome.code == 1
    line = one_line(outcome)
    for expected in (runs["good"], other, "references", '"3"', "something else"):
        assert str(expected) in line


# Runs with log-likelihoods


def test_run_measures_log_likelihoods_of_a_real_model(call, tiny_folder, monkeypatch):
    monkeypatch.setattr("lmtasks.api.running.load_model", LOAD_MODEL)
    flags = ("--model", tiny_folder, "--dtype", "float32", "--limit", "3", "--max-new-tokens", "4", "--metrics", "chrf")
    outcome = call("run", TASK, *flags, "--loglikelihood", "--json")
    assert outcome.code == 0, outcome.err
    result = only_json(outcome)
    scores = {score["name"]: score for score in result["scores"]}
    assert set(scores) == {"chrF", "logprob_per_byte", "logprob_per_token", "perplexity"}
    samples = Run(Path(result["run"])).samples
    measured = [likely for sample in samples for likely in sample.loglikelihoods]
    assert len(measured) == sum(len(sample.references) for sample in samples) >= 3
    logprob, tokens = (sum(getattr(likely, name) for likely in measured) for name in ("logprob", "tokens"))
    assert scores["perplexity"]["value"] == pytest.approx(math.exp(-logprob / tokens))
    assert result["timings"]["loglikelihood_seconds"] > 0
    text = call("score", result["run"], "--resamples", "0").out
    assert re.search(r"^perplexity +\d+\.\d+ ", text, re.MULTILINE)
    assert f"tokens:{tokens}|" in text
    assert call("compare", result["run"], result["run"], "--trials", "10", "--resamples", "10").code == 0


@pytest.mark.parametrize("metric", ["perplexity", "loglikelihood", "chrf,perplexity"])
def test_run_refuses_likelihood_metrics_it_does_not_measure(call, metric):
    outcome = call("run", TASK, "--metrics", metric)
    assert outcome.code == 2
    assert "run with --loglikelihood" in one_line(outcome)
    assert not Path("runs").exists()


def test_run_prints_the_perplexity_of_a_fake_model(call, monkeypatch):
    monkeypatch.setattr("lmtasks.api.running.load_model", lambda *_, **__: FakeModel(lambda prompt: "x"))
    outcome = call("run", TASK, "--loglikelihood", "--limit", "3", "--metrics", "chrf")
    assert outcome.code == 0
    assert re.search(r"^perplexity +2\.0+ +2\.0+ to 2\.0+ +en +3$", outcome.out, re.MULTILINE)


# What is not loaded


def test_score_and_compare_import_neither_torch_nor_evaluate(data, runs):
    lines(data.with_name("system.txt"), GOOD)
    code = f"""
import sys
from lmtasks.cli.main import main
for arguments in (
    ["score", {TASK!r}, "--data", {str(data)!r}, "--predictions", {str(data.with_name("system.txt"))!r}],
    ["score", {str(runs["good"])!r}],
    ["compare", {str(runs["good"])!r}, {str(runs["bad"])!r}, "--trials", "10", "--resamples", "10"],
):
    try:
        main(arguments)
    except SystemExit as exit:
        assert exit.code == 0, arguments
heavy = ("torch", "transformers", "peft", "evaluate", "datasets")
print(sorted(name for name in heavy if name in sys.modules), file=sys.stderr)  # stdout was for results
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=data.parent)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
