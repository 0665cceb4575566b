"""Run folders that were edited or damaged: one line with file and path of the part, and never another score."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
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
    for number in range(4)
]


def make_task(**changes: Any) -> Task:
    settings = {
        "name": "echo",
        "version": 1,
        "summary": "Echo.",
        "fields": {"text": Field(truncatable=True)},
        "prompts": {"plain": "Say $text"},
        "datasets": {"demo": lambda split: iter(EXAMPLES if split == "test" else [])},
        "metrics": ("exact_match", "chrf"),
    }
    return Task(**(settings | changes))


def answer(prompt: str) -> str:
    return f" answer {prompt.split()[-1]}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folders with a run each: a finished one, another of the same data, and one with three of four samples."""

    def breaks_off(prompt: str) -> str:
        if prompt.split()[-1] == "3":
            raise KeyboardInterrupt
        return answer(prompt)

    folder = tmp_path_factory.mktemp("made")
    lmtasks.run(make_task(), model=FakeModel(answer), output_dir=folder / "finished")
    lmtasks.run(make_task(), model=FakeModel(lambda prompt: "x"), output_dir=folder / "other")
    with pytest.raises(KeyboardInterrupt):
        lmtasks.run(make_task(), model=FakeModel(breaks_off), output_dir=folder / "unfinished")
    return folder


def copied(made: Path, kind: str, tmp_path: Path) -> Path:
    shutil.copytree(made / kind, tmp_path / kind)
    (folder,) = (tmp_path / kind).iterdir()
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    return Run(copied(made, "finished", tmp_path))


@pytest.fixture
def other(made: Path, tmp_path: Path) -> Run:
    return Run(copied(made, "other", tmp_path))


@pytest.fixture
def unfinished(made: Path, tmp_path: Path) -> Path:
    return copied(made, "unfinished", tmp_path)


def refused(error: type[LmtasksError], call: Callable[[], object], *problem: object) -> None:
    """See that a call fails in one line that tells these things."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 600
    for thing in problem:
        assert str(thing) in message


def edit_line(folder: Path, number: int, change: Callable[[dict[str, Any]], object] | dict[str, Any] | str) -> None:
    """Change a line of samples.jsonl, the first one being 1: by a function, with other values, or as a whole."""
    file = folder / "samples.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    if isinstance(change, str):
        lines[number - 1] = change
    else:
        values = json.loads(lines[number - 1])
        if isinstance(change, dict):
            values |= change
        else:
            change(values)
        lines[number - 1] = json.dumps(values)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def update_hash(folder: Path) -> None:
    """Record the SHA-256 of samples.jsonl as it is now."""
    sha256 = hashlib.sha256((folder / "samples.jsonl").read_bytes()).hexdigest()
    edit_record(folder, at("samples_sha256", sha256))


def line(folder: Path, number: int) -> str:
    return (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()[number - 1]


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda values: values.pop(name)


DAMAGED_SAMPLES: list[tuple[Any, str]] = [
    ({"index": 0}, "the index 0 occurs in line 1 too"),
    ({"index": 0, "id": "e0"}, "the index 0 occurs in line 1 too"),
    ({"id": "e0"}, "the id of line 1 occurs here too"),
    ({"references": "abc"}, "references: expected a list, got 'abc'"),
    ({"references": ["a", 3]}, "references[1]: expected text, got 3"),
    ({"references": None}, "references: expected a list, got None"),
    ({"references": [["a"]]}, "references[0]: expected text, got ['a']"),
    ({"prediction": 4}, "prediction: expected text, got 4"),
    ({"prediction": None}, "prediction: expected text, got None"),
    ({"inputs": ["a"]}, "inputs: expected an object, got ['a']"),
    ({"inputs": {"text": 1}}, "inputs.text: expected text, got 1"),
    ({"inputs": {"\x1b]0;owned\x07": 1}}, r"inputs['\x1b]0;owned\x07']: expected text"),
    ({"meta": {"topic": None}}, "meta.topic: expected text, got None"),
    ({"language": 3}, "language: expected text or null, got 3"),
    ({"finish_reason": "done"}, "finish_reason: expected 'stop' or 'length' or 'skipped' or 'unknown', got 'done'"),
    ({"finish_reason": ["stop"]}, "finish_reason: expected 'stop'"),
    ({"index": "1"}, "index: expected a whole number, got '1'"),
    ({"index": 1.0}, "index: expected a whole number, got 1.0"),
    ({"index": True}, "index: expected a whole number, got True"),
    ({"index": -1}, "index: expected a number of at least 0, got -1"),
    ({"index": 4}, "index: expected one of the 4 examples, 0 to 3, got 4"),
    ({"index": 10**30}, "index: expected a whole number"),
    ({"prompt_tokens": -5}, "prompt_tokens: expected a number of at least 0, got -5"),
    ({"completion_tokens": 2.5}, "completion_tokens: expected a whole number, got 2.5"),
    ({"truncated": {"text": -1}}, "truncated.text: expected a number of at least 0, got -1"),
    ({"truncated": {"text": True}}, "truncated.text: expected a whole number, got True"),
    ({"error": 1}, "error: expected text or null, got 1"),
    ({"colour": "red"}, "colour: unknown"),
    (without("references"), "references: missing"),
    (without("prediction"), "prediction: missing"),
    (without("id"), "id: missing"),
    ({"loglikelihoods": [{"logprob": -1.0, "tokens": 2}]}, "loglikelihoods[0].bytes: missing"),
    ({"loglikelihoods": [{"logprob": "x", "tokens": 2, "bytes": 2}]}, "loglikelihoods[0].logprob: expected a number"),
    ({"loglikelihoods": [{"logprob": -1, "tokens": -2, "bytes": 2}]}, "loglikelihoods[0].tokens: expected a number of"),
    (
        {"loglikelihoods": [{"logprob": -1.0, "tokens": 2, "bytes": 2}] * 2},
        "loglikelihoods: expected one for each of the 1 references, got 2",
    ),
    ("", "Expecting value"),
    ("[]", "expected an object, got []"),
    ("null", "expected an object, got None"),
    ('"text"', "expected an object, got 'text'"),
    ("{", "Expecting property name"),
    ("[" * 100_000, "nested too deeply"),
    ('{"loglikelihoods": [{"logprob": NaN}]}', "NaN is not a JSON number"),
    ('{"loglikelihoods": [{"logprob": -Infinity}]}', "-Infinity is not a JSON number"),
    ('{"loglikelihoods": [{"logprob": 1e999}]}', "the number '1e999' is too large"),
    ('{"index": ' + "9" * 5000 + "}", "Exceeds the limit"),
    ('{"id": "e1", "id": "e1"}', "the key 'id' occurs twice"),
    ('{"inputs": {"text": "a", "text": "b"}}', "the key 'text' occurs twice"),
]


@pytest.mark.parametrize(("change", "problem"), DAMAGED_SAMPLES)
def test_score_and_compare_refuse_damaged_sample_with_file_and_line(run: Run, other: Run, change: Any, problem: str):
    edit_line(run.path, 2, change)
    where = f"{run.path / 'samples.jsonl'}, line 2: damaged ("
    refused(RunError, lambda: lmtasks.score(run.path), where, problem)
    refused(RunError, lambda: lmtasks.compare(other.path, run.path), where, problem)


@pytest.mark.parametrize(("change", "problem"), DAMAGED_SAMPLES)
def test_resume_refuses_damaged_sample(unfinished: Path, change: Any, problem: str):
    edit_line(unfinished, 2, change)
    before = (unfinished / "samples.jsonl").read_bytes()
    model = FakeModel(answer)
    where = f"{unfinished / 'samples.jsonl'}, line 2: damaged ("
    refused(
        RunError,
        lambda: lmtasks.run(make_task(), model=model, output_dir=unfinished.parent),
        where, problem, "remove that line", "output_dir",
    )  # fmt: skip
    assert model.prompts == []
    assert (unfinished / "samples.jsonl").read_bytes() == before


def test_score_refuses_sample_that_is_not_utf8(run: Run):
    file = run.path / "samples.jsonl"
    file.write_bytes(file.read_bytes().replace(b"answer 2", b"answer \xff", 1))
    refused(RunError, lambda: lmtasks.score(run.path), f"{file}, line 3: damaged (", "utf-8")


def test_score_refuses_repeated_line(run: Run):
    file = run.path / "samples.jsonl"
    file.write_text(file.read_text() + line(run.path, 1) + "\n")
    refused(RunError, lambda: lmtasks.score(run.path), f"{file}, line 5: damaged (the index 0 occurs in line 1 too)")


def test_score_does_not_depend_on_order_of_lines(run: Run):
    file = run.path / "samples.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(reversed(lines)))
    update_hash(run.path)
    assert lmtasks.score(run.path).scores == run.scores
    assert [sample.index for sample in Run(run.path).samples] == [0, 1, 2, 3]


def test_score_refuses_samples_that_are_a_folder(run: Run):
    (run.path / "samples.jsonl").unlink()
    (run.path / "samples.jsonl").mkdir()
    refused(RunError, lambda: lmtasks.score(run.path), run.path / "samples.jsonl", "not a file")


def test_sample_fields_with_default_may_be_missing(run: Run):
    """Samples that another program wrote, without all fields."""
    edit_line(
        run.path, 1, lambda values: [values.pop(name) for name in ("loglikelihoods", "error", "meta", "truncated")]
    )
    update_hash(run.path)
    assert lmtasks.score(run.path).scores == run.scores


def test_samples_keep_half_surrogate_pairs(tmp_path: Path):
    odd = [Example(id="a", inputs={"text": "half \ud83d"}, references=("x",))]
    task = make_task(datasets={"demo": lambda split: iter(odd)})
    run = lmtasks.run(task, model=FakeModel(["x \ud83d"]), output_dir=tmp_path)
    assert lmtasks.score(run.path).scores == run.scores


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": "e9"}, "id"),
        ({"references": ["another"]}, "references"),
        ({"references": []}, "references"),
        ({"inputs": {"text": "another"}}, "inputs"),
        ({"inputs": {}}, "inputs"),
        ({"index": 3}, "id"),
        ({"prompt_sha256": "0" * 64}, "prompt_sha256"),
        ({"prompt_tokens": 10**9}, "prompt_tokens"),
        ({"truncated": {"text": 3}}, "truncated"),
        ({"finish_reason": "skipped"}, "finish_reason"),
        ({"finish_reason": "unknown"}, "finish_reason"),
        ({"loglikelihoods": [{"logprob": -1.0, "tokens": 2, "bytes": 2}]}, "loglikelihoods"),
    ],
)
def test_resume_refuses_edited_sample(unfinished: Path, change: dict[str, Any], field: str):
    edit_line(unfinished, 2, change)
    model = FakeModel(answer)
    refused(
        RunError,
        lambda: lmtasks.run(make_task(), model=model, output_dir=unfinished.parent),
        f"{unfinished / 'samples.jsonl'}, line 2: the {field} of sample", "was edited", "output_dir",
    )  # fmt: skip
    assert model.prompts == []
    # As the message says: without that line, its example is answered again.
    file = unfinished / "samples.jsonl"
    file.write_text("\n".join([line(unfinished, 1), line(unfinished, 3)]) + "\n")
    run = lmtasks.run(make_task(), model=model, output_dir=unfinished.parent)
    assert run.path == unfinished
    assert len(model.prompts) == 2
    assert run.scores[0].value == 100


def test_resume_parses_completions_again(unfinished: Path):
    edit_line(unfinished, 2, {"prediction": "edited", "language": "zh", "meta": {"topic": "edited"}})
    run = lmtasks.run(make_task(), model=FakeModel(answer), output_dir=unfinished.parent)
    assert run.samples[1].prediction == "answer 1"
    assert (run.samples[1].language, dict(run.samples[1].meta)) == (None, {})
    assert run.scores[0].value == 100


def test_reading_many_samples_is_fast(run: Run):
    count = 20_000
    values = json.loads(line(run.path, 1))
    many = (json.dumps(values | {"index": number, "id": f"e{number}"}) for number in range(count))
    (run.path / "samples.jsonl").write_text("\n".join(many) + "\n")
    edit_record(run.path, at("data.count", count))
    update_hash(run.path)
    begun = time.process_time()
    assert len(Run(run.path).samples) == count
    assert time.process_time() - begun < 5  # 0.5 s on two cores; quadratic time would be minutes


def edit_record(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "run.json"
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))


def at(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Return what sets a value, by its keys: "scores.0.value"."""
    *outer, last = path.split(".")

    def change(record: Any) -> None:
        for key in outer:
            record = record[int(key) if isinstance(record, list) else key]
        record[int(last) if isinstance(record, list) else last] = value

    return change


def lacks(path: str) -> Callable[[dict[str, Any]], None]:
    """Return what removes a key."""
    *outer, last = path.split(".")

    def change(record: Any) -> None:
        for key in outer:
            record = record[int(key) if isinstance(record, list) else key]
        del record[last]

    return change


REQUIRED = (
    "status", "error", "started", "finished", "task", "task.name", "task.version", "task.plugin", "task.distribution",
    "prompt", "prompt.name", "prompt.form", "prompt.fewshot", "data", "data.name", "data.count", "data.sha256",
    "data.file_sha256", "data.split", "model", "model.name", "model.source", "model.revision", "model.architecture",
    "model.parameters", "model.dtype", "model.device", "model.remote_code", "generation", "seed", "counts",
    "counts.examples", "counts.scored", "counts.skipped", "timings", "timings.generate_seconds", "tokens",
    "tokens.prompt", "tokens.completion", "scores", "scores.0.name", "scores.0.value", "scores.0.signature",
    "scores.0.n", "scores.0.unit", "environment", "environment.packages", "environment.git", "peak_memory_bytes",
)  # fmt: skip


@pytest.mark.parametrize("path", REQUIRED)
def test_run_record_without_a_part_is_refused_in_one_line(run: Run, path: str):
    edit_record(run.path, lacks(path))
    said = path.replace(".0.", "[0].")
    refused(RunError, lambda: lmtasks.score(run.path), f"{run.path / 'run.json'}: damaged ({said}: missing)")


@pytest.mark.parametrize("wrong", [None, "x", [], {}, -1.5])
def test_run_record_with_wrong_types_gives_scores_or_one_line(run: Run, other: Run, wrong: Any):
    """Every part, the optional ones too, is put in every type: what is taken must score as before."""
    honest = (run.path / "run.json").read_text()
    paths = [*REQUIRED, "key", "metrics", "output_checks", "output_checks.0.name", "intervals", "backend", "adapter",
             "quantization_loss", "samples_sha256",
             "task.parameters", "batch_size", "training", "schema", "metrics.0", "counts.empty",
             "scores.0.low", "data.columns", "intervals.seed", "environment.packages.numpy"]  # fmt: skip
    taken = []
    for path in paths:
        (run.path / "run.json").write_text(honest)
        edit_record(run.path, at(path, wrong))
        try:
            again = lmtasks.score(run.path, metrics=("exact_match", "chrf"), resamples=0)
            [compared] = lmtasks.compare(run.path, other.path, metrics=("exact_match",), resamples=2, trials=1)
            lmtasks.reports.write_report(Run(run.path))
        except LmtasksError as error:
            assert len(str(error).splitlines()) == 1
            assert path.split(".")[0] in str(error) or path == "data.count", (path, str(error))
        else:
            taken.append(path)
            assert [score.value for score in again.scores] == [score.value for score in run.scores]
            assert compared.n == 4
    # Not everything may be taken: a number is no name.
    assert len(taken) < len(paths) / 2


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (at("scores.0.value", "x"), "scores[0].value: expected a number, got 'x'"),
        (at("scores.0.colour", "x"), "scores[0].colour: unknown"),
        (at("scores", {}), "scores: expected a list, got {}"),
        (at("output_checks.0", 3), "output_checks[0]: expected an object, got 3"),
        (at("status", "done"), "status: expected 'running' or 'finished' or 'failed' or 'interrupted', got 'done'"),
        (at("data.count", -1), "data.count: expected a number of at least 0, got -1"),
        (at("counts", {}), "counts.examples: missing"),
        (at("tokens.prompt", 10**400), "tokens.prompt: expected a whole number"),
        (at("prompt.fewshot", {"ids": [1]}), "prompt.fewshot.data: missing"),
        (
            at("quantization_loss", {"tokens": 1, "baseline_ppl": 0, "quantized_ppl": 1}),
            "quantization_loss.baseline_ppl: expected a number of at least 0.5",
        ),
        (
            at("prompt.chat_template", {"kwargs": {}, "date": "today"}),
            "prompt.chat_template.date: expected a date such",
        ),
        (
            at("prompt.chat_template", {"kwargs": {}, "date": "2026-02-31"}),
            "expected a date such as 2026-01-31 or null",
        ),
        (at("timings.generate_seconds", -1), "timings.generate_seconds: expected a number of at least 0, got -1"),
        (at("metrics", "bleu"), "metrics: expected a list, got 'bleu'"),
        (at("adapter", {"source": "x"}), "adapter.id: missing"),
        (at("training", {}), "training.made: missing"),
        (at("more", json.loads("[" * 200 + "]" * 200)), "nested too deeply"),
    ],
)
def test_damaged_run_record_is_refused_with_path_and_value(
    run: Run, other: Run, change: Callable[[dict[str, Any]], None], problem: str
):
    edit_record(run.path, change)
    where = f"{run.path / 'run.json'}: damaged ("
    refused(RunError, lambda: lmtasks.score(run.path), where, problem)
    refused(RunError, lambda: lmtasks.compare(other.path, run.path), where, problem)
    refused(RunError, lambda: Run(run.path), where, problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Expecting value"),
        ('{"schema": 2, "schema": 2}', "the key 'schema' occurs twice"),
        ('{"schema": 2, "seed": NaN}', "NaN is not a JSON number"),
        ('{"schema": 2, "seed": 1e999}', "too large"),
        ("[" * 100_000, "nested too deeply"),
        ("\ufeff{}", "Expecting value"),
        ("[]", "expected an object, got []"),
        ("{}", "schema None"),
        ('{"schema": 2}', "status: missing"),
    ],
)
def test_run_record_that_is_not_json_is_refused(run: Run, text: str, problem: str):
    (run.path / "run.json").write_text(text, encoding="utf-8")
    refused(RunError, lambda: Run(run.path), run.path / "run.json", problem)


def test_huge_run_record_is_refused_without_reading_it(run: Run):
    file = run.path / "run.json"
    with file.open("wb") as sparse:
        sparse.truncate(2**40)
    refused(RunError, lambda: Run(run.path), file, "larger than 64 MiB")
    file.unlink()
    file.mkdir()
    refused(RunError, lambda: Run(run.path), file, "not a file")


@pytest.mark.parametrize("schema", [1, 3, "2", 2.0, True, None])
def test_record_of_another_schema_is_refused_with_its_writer(run: Run, schema: Any):
    edit_record(run.path, at("schema", schema))
    edit_record(run.path, at("environment.packages.lmtasks", "0.0.9"))
    problem = f"schema {schema!r}, written by lmtasks 0.0.9; this lmtasks reads schema 2; run it again, or use"
    refused(RunError, lambda: Run(run.path), f"{run.path / 'run.json'}: {problem}")
    refused(RunError, lambda: lmtasks.score(run.path), problem)


def test_record_with_an_unknown_key_is_refused(run: Run):
    edit_record(run.path, at("later", {"a": [1]}))
    refused(RunError, lambda: lmtasks.score(run.path), f"{run.path / 'run.json'}: damaged (later: unknown)")


# The hash of samples.jsonl


def test_samples_of_a_finished_run_are_checked_against_their_hash(run: Run, other: Run):
    record = json.loads((run.path / "run.json").read_text())
    file = run.path / "samples.jsonl"
    assert record["samples_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    edit_line(run.path, 2, {"prediction": "another"})
    problem = (f"{file}: damaged, or edited: its SHA-256 is", record["samples_sha256"][:12], "run it again")
    refused(RunError, lambda: lmtasks.load_run(run.path), *problem)
    refused(RunError, lambda: lmtasks.score(run.path), *problem)
    refused(RunError, lambda: lmtasks.compare(other.path, run.path), *problem)
    refused(RunError, lambda: lmtasks.reports.markdown_report(Run(run.path)), *problem)


def test_hash_of_samples_is_that_of_the_resumed_run(unfinished: Path):
    assert Run(unfinished).record.samples_sha256 is None
    edit_line(unfinished, 2, {"prediction": "edited"})
    run = lmtasks.run(make_task(), model=FakeModel(answer), output_dir=unfinished.parent)
    assert run.path == unfinished
    assert lmtasks.load_run(unfinished).samples == run.samples


def test_finished_record_without_a_hash_of_its_samples_is_refused(run: Run):
    edit_record(run.path, at("samples_sha256", None))
    refused(RunError, lambda: Run(run.path), "damaged (samples_sha256: expected text in a finished run, got None)")


def test_load_run_returns_typed_parts(run: Run):
    loaded = lmtasks.load_run(run.path)
    assert (loaded.record.task.name, loaded.record.prompt.name, loaded.record.counts.scored) == ("echo", "plain", 4)
    assert [sample.id for sample in loaded.samples] == ["e0", "e1", "e2", "e3"]
    assert loaded.scores == run.scores


def test_run_warns_of_damaged_record_and_uses_new_folder(unfinished: Path, caplog: pytest.LogCaptureFixture):
    edit_record(unfinished, at("data.count", "x"))
    run = lmtasks.run(make_task(), model=FakeModel(answer), output_dir=unfinished.parent)
    assert run.path != unfinished
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"{unfinished / 'run.json'}: damaged (data.count: expected a whole number")
    assert "cannot be resumed" in message


def test_score_command_refuses_damaged_run_with_exit_code_1(run: Run, capsys: pytest.CaptureFixture[str]):
    edit_line(run.path, 2, {"references": "abc"})
    with pytest.raises(SystemExit) as ended:
        main(["score", str(run.path)])
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        f"lmtasks: {run.path / 'samples.jsonl'}, line 2: damaged (references: expected a list, got 'abc')"
    ]
