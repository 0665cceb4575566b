from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from sacrebleu.metrics import BLEU, CHRF, TER

import lmtasks
from lmtasks import Example, Generate, Run, ScoreOptions, Task
from lmtasks.errors import DataError, LmtasksError, MetricError, RunError, UnknownNameError, UsageError
from lmtasks.testing import FakeModel

IDS = ("a", "b", "c", "d")
REFERENCES = (
    ["The ferry leaves the harbour at nine o'clock.", "At nine the ferry leaves the harbour."],
    ["It returns at six in the evening."],
    ["Nobody was on board.", "The boat was empty.", "There was nobody on board."],
    ["Bread costs two euros here."],
)
OUTPUTS = (
    "The ferry leaves the harbour at nine.",
    "It comes back at six in the evening.",
    "There was nobody on the boat.",
    "Bread costs two euros here!",
)


def make_task(**changes) -> Task:
    settings = {
        "name": "echo",
        "version": 1,
        "summary": "Echo.",
        "fields": ("text",),
        "references": ("gold",),
        "prompts": {"plain": "Say $text"},
        "datasets": {"demo": lambda split: iter([])},
        "metrics": ("bleu", "chrf", "ter"),
    }
    return Task(**(settings | changes))


def jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path) -> Path:
    rows = zip(IDS, REFERENCES, strict=True)
    return jsonl(tmp_path / "data.jsonl", [{"id": id, "text": f"text {id}", "references": refs} for id, refs in rows])


@pytest.fixture
def outputs(tmp_path) -> Path:
    path = tmp_path / "system.txt"
    path.write_text("".join(f"{text}\n" for text in OUTPUTS), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmtasks.api.running.load_model", lambda *_, **__: pytest.fail("a model was loaded"))


def score(data: Path, predictions: Path, task: Task | None = None, **changes):
    return lmtasks.score(task or make_task(), data=data, predictions=predictions, **({"resamples": 0} | changes))


def values(scored) -> dict[str, float]:
    return {score.name: score.value for score in scored.scores}


def predictions(scored) -> list[str]:
    return [sample.prediction for sample in scored.samples]


def by_sacrebleu(outputs, references, *, tokenize: str | None = None) -> dict[str, float]:
    """The scores of sacrebleu itself, called by hand: one stream per number of reference, padded by None."""
    streams = [
        [texts[number] if number < len(texts) else None for texts in references]
        for number in range(max(map(len, references)))
    ]
    metrics = {"BLEU": BLEU(tokenize=tokenize), "chrF": CHRF(), "TER": TER()}
    return {name: metric.corpus_score(list(outputs), streams).score for name, metric in metrics.items()}


def refused(error: type[LmtasksError], call: Callable[[], object], *parts: object) -> None:
    """See that a call fails in one line that has these parts."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for thing in parts:
        assert str(thing) in message


def tree(folder: Path) -> dict[str, str]:
    """The hash of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def answers(outputs=OUTPUTS) -> FakeModel:
    return FakeModel(list(outputs))


# Lines, by their place


def test_scores_are_those_of_sacrebleu_on_the_same_strings(data, outputs):
    assert values(score(data, outputs)) == pytest.approx(by_sacrebleu(OUTPUTS, REFERENCES), abs=1e-9)


def test_each_line_answers_the_example_at_its_place(data, outputs):
    scored = score(data, outputs)
    assert [(sample.id, sample.prediction) for sample in scored.samples] == list(zip(IDS, OUTPUTS, strict=True))
    assert [list(sample.references) for sample in scored.samples] == list(REFERENCES)
    assert {sample.finish_reason for sample in scored.samples} == {"unknown"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"one\ntwo\nthree\nfour\n", ["one", "two", "three", "four"]),
        (b"one\ntwo\nthree\nfour", ["one", "two", "three", "four"]),
        (b"one\r\ntwo\r\nthree\r\nfour\r\n", ["one", "two", "three", "four"]),
        (b"\xef\xbb\xbfone\ntwo\nthree\nfour\n", ["one", "two", "three", "four"]),
        (b"one\n\nthree\n\n", ["one", "", "three", ""]),
        (b"\n\n\n\n", ["", "", "", ""]),
        (b"\r\n\r\n\r\nfour", ["", "", "", "four"]),
    ],
    ids=["newline at the end", "none at the end", "CRLF", "byte order mark", "blank lines", "all blank", "blank CRLF"],
)
def test_lines_are_read_as_editors_of_all_systems_write_them(data, tmp_path, content, expected):
    (tmp_path / "system.txt").write_bytes(content)
    assert predictions(score(data, tmp_path / "system.txt")) == expected


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1e", "\r"], ids=ascii)
def test_only_a_newline_ends_a_line(data, tmp_path, separator):
    lines = [f"one{separator}two", "three", "four", f"five {separator} six"]
    (tmp_path / "system.txt").write_bytes("".join(f"{line}\n" for line in lines).encode())
    assert predictions(score(data, tmp_path / "system.txt")) == lines


@pytest.mark.parametrize("content", ["", "one\n", "one\ntwo\nthree\n", "1\n2\n3\n4\n5\n", "1\n2\n3\n4\n\n"], ids=repr)
def test_more_or_fewer_lines_than_examples_are_refused(data, tmp_path, content):
    (tmp_path / "system.txt").write_text(content)
    counts = f"{content.count(chr(10))} line", "4 examples"
    refused(DataError, lambda: score(data, tmp_path / "system.txt"), tmp_path / "system.txt", *counts)


def test_a_blank_line_is_an_empty_output_that_counts(data, tmp_path):
    emptied = ["", *OUTPUTS[1:]]
    (tmp_path / "system.txt").write_text("".join(f"{text}\n" for text in emptied))
    scored = score(data, tmp_path / "system.txt")
    assert values(scored) == pytest.approx(by_sacrebleu(emptied, REFERENCES), abs=1e-9)
    assert {score.n for score in scored.scores} == {4}
    assert scored.record.counts.empty == 1
    assert {score.name: score.value for score in scored.output_checks}["empty"] == 25


def test_outputs_are_scored_as_they_are(data, tmp_path):
    # A task's parser is for what its own prompts bring forth.
    (tmp_path / "system.txt").write_text("a: b\n<|im_end|>\n\ud83d".encode("utf-8", "replace").decode() + "\n# d\n")
    task = make_task(output=Generate(parse=lambda completion: pytest.fail("parsed")))
    assert predictions(score(data, tmp_path / "system.txt", task)) == ["a: b", "<|im_end|>", "?", "# d"]


# Rows, by their id


def shuffled(**columns: str) -> list[dict]:
    """Rows of outputs in another order than the data has."""
    name = columns.get("name", "prediction")
    rows = [{"id": id, name: text} for id, text in zip(IDS, OUTPUTS, strict=True)]
    return [rows[2], rows[0], rows[3], rows[1]]


def written(folder: Path, suffix: str, rows: list[dict]) -> Path:
    path = folder / f"system{suffix}"
    if suffix in (".jsonl", ".ndjson"):
        return jsonl(path, rows)
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    separator = "\t" if suffix == ".tsv" else ","
    lines = [separator.join(rows[0]), *(separator.join(str(cell) for cell in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".csv", ".tsv", ".parquet"])
def test_rows_are_matched_by_id_in_whatever_order(data, outputs, tmp_path, suffix):
    scored = score(data, written(tmp_path, suffix, shuffled()))
    assert predictions(scored) == list(OUTPUTS)
    assert values(scored) == values(score(data, outputs))


def test_ids_that_are_numbers_match_however_they_are_written(outputs, tmp_path):
    rows = [{"id": number, "references": refs} for number, refs in enumerate(REFERENCES)]
    system = [{"id": str(number), "prediction": text} for number, text in reversed(list(enumerate(OUTPUTS)))]
    scored = score(jsonl(tmp_path / "data.jsonl", rows), jsonl(tmp_path / "system.jsonl", system))
    assert predictions(scored) == list(OUTPUTS)


def test_data_without_ids_is_numbered_from_one(tmp_path):
    data = jsonl(tmp_path / "data.jsonl", [{"references": refs} for refs in REFERENCES])
    system = jsonl(tmp_path / "system.jsonl", [{"id": n, "prediction": OUTPUTS[n - 1]} for n in (4, 2, 3, 1)])
    assert predictions(score(data, system)) == list(OUTPUTS)


@pytest.mark.parametrize("name", ["prediction", "hypothesis", "output", "completion", "generated"])
def test_outputs_are_known_by_usual_names(data, tmp_path, name):
    assert predictions(score(data, jsonl(tmp_path / "system.jsonl", shuffled(name=name)))) == list(OUTPUTS)


def test_a_column_called_prediction_comes_before_all_others(data, tmp_path):
    rows = [{"output": "an input", "generated": "a right answer", **row} for row in shuffled()]
    assert predictions(score(data, jsonl(tmp_path / "system.jsonl", rows))) == list(OUTPUTS)


def test_map_names_the_column_of_the_outputs(data, tmp_path):
    rows = [{"prediction": "not this", **row} for row in shuffled(name="system 2")]
    scored = score(data, jsonl(tmp_path / "system.jsonl", rows), columns={"prediction": "system 2"})
    assert predictions(scored) == list(OUTPUTS)
    assert scored.record.data.columns == {}


def test_an_empty_cell_and_a_null_are_empty_outputs(data, tmp_path):
    (tmp_path / "system.csv").write_text("id,prediction\na,x\nb,\nc,y\nd,\n")
    assert predictions(score(data, tmp_path / "system.csv")) == ["x", "", "y", ""]
    rows = [{"id": id, "prediction": None if id == "b" else id} for id in IDS]
    assert predictions(score(data, jsonl(tmp_path / "system.jsonl", rows))) == ["a", "", "c", "d"]


def changed(which: str, **values: object) -> list[dict]:
    """Rows in the data's order, one of them changed."""
    rows = [{"id": id, "prediction": text} for id, text in zip(IDS, OUTPUTS, strict=True)]
    return [{**row, **values} if row["id"] == which else row for row in rows]


BAD_ROWS = {
    "missing id": (changed("c")[:2] + changed("c")[3:], "", ["no prediction for c"]),
    "all ids missing": ([], "", ["a, b, c", "4"]),
    "unknown id": ([*changed("a"), {"id": "z", "prediction": "z"}], "", ["the data has no example for z"]),
    "duplicate id": ([*changed("a"), {"id": "b", "prediction": "again"}], ", line 5", ['"b"', "unique"]),
    "no id column": ([{"prediction": text} for text in OUTPUTS], ", line 1", ['"id"']),
    "no id in one row": (changed("c", id=None), ", line 3", ['"id"']),
    "empty id in one row": (changed("c", id=" "), ", line 3", ['"id"']),
    "a list": (changed("b", prediction=["x"]), ", line 2", ['"prediction"', "list", "expected text"]),
    "an object": (changed("b", prediction={"x": "y"}), ", line 2", ['"prediction"', "expected text"]),
    "no known column": (
        shuffled(name="sysout"),
        "",
        ["no column", "hypothesis", "sysout", "columns={'prediction': 'COLUMN'}"],
    ),
}


@pytest.mark.parametrize(("rows", "place", "parts"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_rows_that_do_not_match_are_refused_with_their_place(data, tmp_path, rows, place, parts):
    path = jsonl(tmp_path / "system.jsonl", rows)
    refused(DataError, lambda: score(data, path), f"{path}{place}: ", *parts)


def test_a_mapped_column_that_is_not_there_is_refused(data, tmp_path):
    path = jsonl(tmp_path / "system.jsonl", shuffled(name="system 2"))
    refused(DataError, lambda: score(data, path, columns={"prediction": "system2"}), path, "system2", "system 2")


def test_a_line_that_is_no_json_is_named(data, tmp_path):
    path = tmp_path / "system.jsonl"
    path.write_text('{"id": "a", "prediction": "x"}\n{"id": "b", "predic\n')
    refused(DataError, lambda: score(data, path), f"{path}, line 2: ")


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("system.txt", "one\nGröße\n", ", line 2"),
        ("system.jsonl", '{"id": "a", "prediction": "Größe"}\n', ", line 1"),
        ("system.csv", "id,prediction\na,Größe\n", ", line 2"),
    ],
)
def test_a_file_that_is_not_utf8_is_named(data, tmp_path, name, content, place):
    path = tmp_path / name
    path.write_bytes(content.encode("latin-1"))
    refused(DataError, lambda: score(data, path), f"{path}{place}: not UTF-8")


@pytest.mark.parametrize("name", ["nowhere.txt", "nowhere.jsonl", "."])
def test_a_file_that_is_not_there_is_named(data, tmp_path, name):
    refused(DataError, lambda: score(data, tmp_path / name), tmp_path / name, "predictions")


# References and inputs


def test_a_list_of_references_wins_over_a_single_field(outputs, tmp_path):
    rows = [
        {"id": id, "text": id, "gold": "something else", "references": refs}
        for id, refs in zip(IDS, REFERENCES, strict=True)
    ]
    scored = score(jsonl(tmp_path / "data.jsonl", rows), outputs)
    assert [list(sample.references) for sample in scored.samples] == list(REFERENCES)
    assert "|nrefs:var|" in scored.scores[0].signature


def test_a_column_that_is_asked_for_wins_over_the_list(outputs, tmp_path):
    gold = [text[0] for text in reversed(REFERENCES)]
    rows = [{"id": id, "gold": text, "references": refs} for id, refs, text in zip(IDS, REFERENCES, gold, strict=True)]
    data = jsonl(tmp_path / "data.jsonl", rows)
    scored = score(data, outputs, references="gold")
    assert [sample.references for sample in scored.samples] == [(text,) for text in gold]
    assert values(scored) == pytest.approx(by_sacrebleu(OUTPUTS, [[text] for text in gold]), abs=1e-9)
    assert scored.record.data.columns == {"references": "gold"}
    assert values(score(data, outputs, columns={"references": "gold"})) == values(scored)


def test_a_column_that_is_asked_for_may_hold_lists(outputs, tmp_path):
    rows = [{"id": id, "both": refs, "gold": "x"} for id, refs in zip(IDS, REFERENCES, strict=True)]
    scored = score(jsonl(tmp_path / "data.jsonl", rows), outputs, references="both")
    assert values(scored) == pytest.approx(by_sacrebleu(OUTPUTS, REFERENCES), abs=1e-9)


@pytest.mark.parametrize("column", ["gold", "reference", "target"])
def test_a_single_reference_is_found_by_its_usual_names(outputs, tmp_path, column):
    rows = [{"id": id, column: refs[0]} for id, refs in zip(IDS, REFERENCES, strict=True)]
    scored = score(jsonl(tmp_path / "data.jsonl", rows), outputs)
    assert values(scored) == pytest.approx(by_sacrebleu(OUTPUTS, [refs[:1] for refs in REFERENCES]), abs=1e-9)


def test_data_needs_none_of_the_inputs_of_the_task(outputs, tmp_path):
    rows = [{"id": id, "references": refs} for id, refs in zip(IDS, REFERENCES, strict=True)]
    data = jsonl(tmp_path / "data.jsonl", rows)
    scored = score(data, outputs)
    assert [dict(sample.inputs) for sample in scored.samples] == [{}] * 4
    assert values(scored) == pytest.approx(by_sacrebleu(OUTPUTS, REFERENCES), abs=1e-9)
    # A run does need them.
    refused(DataError, lambda: lmtasks.run(make_task(), data=data, output_dir=tmp_path / "runs"), 'no field "text"')


def test_inputs_of_the_rows_that_have_them_are_kept(outputs, tmp_path):
    rows = [{"id": id, "references": refs} for id, refs in zip(IDS, REFERENCES, strict=True)]
    rows[2]["text"] = "the third"
    scored = score(jsonl(tmp_path / "data.jsonl", rows), outputs)
    assert [dict(sample.inputs) for sample in scored.samples] == [{}, {}, {"text": "the third"}, {}]


def test_data_without_references_is_refused(outputs, tmp_path):
    data = jsonl(tmp_path / "data.jsonl", [{"id": id, "text": id} for id in IDS])
    refused(UsageError, lambda: score(data, outputs), data, "with references")


def test_a_set_of_the_task_is_scored_by_its_name(outputs):
    examples = [
        Example(id=id, inputs={"text": id}, references=tuple(refs)) for id, refs in zip(IDS, REFERENCES, strict=True)
    ]
    task = make_task(datasets={"demo": lambda split: iter([]), "news": lambda split: iter(examples)})
    scored = lmtasks.score(task, data="news", predictions=outputs, resamples=0)
    assert values(scored) == pytest.approx(by_sacrebleu(OUTPUTS, REFERENCES), abs=1e-9)


def test_split_and_limit_choose_the_examples(tmp_path, outputs):
    rows = [
        {"id": f"{split}-{id}", "split": split, "references": refs}
        for id, refs in zip(IDS, REFERENCES, strict=True)
        for split in ("dev", "test")
    ]
    data = jsonl(tmp_path / "data.jsonl", rows)
    assert [sample.id for sample in score(data, outputs).samples] == [f"test-{id}" for id in IDS]
    (tmp_path / "two.txt").write_text("one\ntwo\n")
    scored = score(data, tmp_path / "two.txt", split="dev", limit=2)
    assert [(sample.id, sample.prediction) for sample in scored.samples] == [("dev-a", "one"), ("dev-b", "two")]


# Language


def test_chinese_is_scored_with_a_tokenizer_for_chinese(tmp_path):
    references = [["渡轮九点钟离开港口。"], ["它晚上六点回来。"]]
    system = ["渡轮九点离开港口。", "它在晚上六点钟返回。"]
    data = jsonl(tmp_path / "data.jsonl", [{"references": refs} for refs in references])
    (tmp_path / "system.txt").write_text("\n".join(system), encoding="utf-8")
    scored = score(data, tmp_path / "system.txt", metrics="bleu")
    wanted = by_sacrebleu(system, references, tokenize="zh")["BLEU"]
    assert values(scored) == pytest.approx({"BLEU": wanted}, abs=1e-9)
    assert "|tok:zh|" in scored.scores[0].signature
    assert scored.scores[0].language == "zh"


def test_the_language_that_is_stated_is_scored(data, outputs):
    [scored] = score(data, outputs, language="ja", metrics="bleu").scores
    assert (scored.language, "|tok:char|" in scored.signature) == ("ja", True)
    [scored] = score(data, outputs, make_task(language="de"), metrics="chrf").scores
    assert (scored.language, scored.signature.endswith("|lang:de")) == ("de", True)


def test_a_mixed_set_has_a_score_for_each_language(tmp_path):
    rows = [{"references": text, "lang": lang} for text, lang in (("one", "en"), ("一", "zh"), ("two", "en"))]
    (tmp_path / "system.txt").write_text("one\n二\ntwo\n", encoding="utf-8")
    scored = score(jsonl(tmp_path / "data.jsonl", rows), tmp_path / "system.txt", metrics="exact_match")
    assert {(score.language, score.value, score.n) for score in scored.scores} == {("en", 100, 2), ("zh", 0, 1)}


# A run again


@pytest.fixture
def run(data, tmp_path) -> Run:
    return lmtasks.run(make_task(), model=answers(), data=data, output_dir=tmp_path / "runs")


def test_a_finished_run_scored_again_gives_the_recorded_scores_and_stays_as_it_is(run):
    before = tree(run.path)
    for target in (run, run.path, str(run.path)):
        scored = lmtasks.score(target)
        assert scored.scores == run.scores
        assert scored.output_checks == run.output_checks
        assert scored.record.metrics == ("bleu", "chrf", "ter")
        assert scored.path == run.path
    assert tree(run.path) == before
    assert set(before) == {"run.json", "samples.jsonl", "report.md"}


def test_a_run_is_scored_again_with_the_metrics_that_it_was_scored_with(data, tmp_path):
    run = lmtasks.run(make_task(), model=answers(), data=data, output_dir=tmp_path / "runs", metrics=("chrf++", "f1"))
    assert [score.name for score in lmtasks.score(run).scores] == ["chrF++", "f1"]


def test_a_run_is_scored_with_other_metrics(run):
    before = tree(run.path)
    scored = lmtasks.score(run, metrics=("chrf++", "exact_match"), resamples=0)
    streams = [[texts[number] if number < len(texts) else None for texts in REFERENCES] for number in range(3)]
    assert values(scored) == pytest.approx(
        {"chrF++": CHRF(word_order=2).corpus_score(list(OUTPUTS), streams).score, "exact_match": 25.0}, abs=1e-9
    )
    assert tree(run.path) == before


def test_log_likelihoods_of_a_run_are_scored_again_and_those_it_lacks_are_missed(data, run, tmp_path):
    measured = lmtasks.run(make_task(), model=answers(), data=data, output_dir=tmp_path / "runs", loglikelihood=True)
    assert lmtasks.score(measured).scores == measured.scores
    assert values(lmtasks.score(measured, metrics="perplexity"))["perplexity"] == pytest.approx(2)
    refused(MetricError, lambda: lmtasks.score(run, metrics="perplexity"), "perplexity", '"a"', "loglikelihood=True")


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_a_run_that_has_not_finished_is_refused(data, tmp_path, status):
    def answer(prompt: str) -> str:
        raise KeyboardInterrupt if status == "interrupted" else RuntimeError("broken")

    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        lmtasks.run(make_task(), model=FakeModel(answer), data=data, output_dir=tmp_path / "runs")
    (folder,) = (tmp_path / "runs").iterdir()
    refused(RunError, lambda: lmtasks.score(folder), folder, status, "not finished")


@pytest.mark.parametrize(
    "changes",
    [
        {"data": "data.jsonl"},
        {"split": "dev"},
        {"limit": 2},
        {"columns": {"references": "gold"}},
        {"references": "gold"},
        {"language": "de"},
        {"output_dir": "elsewhere"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_belongs_to_data_is_refused_with_a_run(run, changes):
    refused(UsageError, lambda: lmtasks.score(run, **changes), "cannot be used with a run")


def test_predictions_do_not_go_with_a_run(run, outputs):
    refused(UsageError, lambda: lmtasks.score(run, predictions=outputs), "a run has its own")


@pytest.mark.parametrize("target", ["summarization", "no such folder"])
def test_a_task_needs_predictions(target):
    refused(UsageError, lambda: lmtasks.score(target), f'"{target}"', "with predictions")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    refused(RunError, lambda: lmtasks.score(tmp_path), tmp_path, "run.json")


# Intervals


def test_intervals_hold_the_score_and_repeat_with_their_seed(data, outputs):
    first, again, other = (score(data, outputs, resamples=200, seed=seed) for seed in (1, 1, 2))
    assert first.scores == again.scores
    assert all(one.low < one.value < one.high for one in first.scores)
    assert values(first) == values(other)
    assert [one.low for one in first.scores] != [one.low for one in other.scores]
    assert first.record.intervals.resamples == 200


def test_without_resamples_there_is_no_interval(data, outputs, run):
    for scored in (score(data, outputs, resamples=0), lmtasks.score(run, resamples=0)):
        assert {(one.low, one.high) for one in (*scored.scores, *scored.output_checks)} == {(None, None)}
        assert scored.record.intervals.resamples == 0


def test_by_default_there_are_intervals(data, outputs):
    scored = lmtasks.score(make_task(), data=data, predictions=outputs, metrics="exact_match")
    assert (scored.scores[0].low, scored.scores[0].high) == (0, 75)
    assert scored.record.intervals.to_json() | {"method": ""} == {
        "method": "", "confidence": 0.95, "resamples": 1000, "seed": 0,
    }  # fmt: skip


# The run folder of outputs


def test_outputs_leave_no_trace_unless_asked(data, outputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    assert score(data, outputs).path is None
    assert tree(tmp_path) == before


def test_outputs_leave_a_run_folder_where_asked(data, outputs, tmp_path):
    scored = score(data, outputs, output_dir=tmp_path / "new" / "runs", resamples=20)
    assert scored.path is not None
    assert scored.path.parent == tmp_path / "new" / "runs"
    assert "echo" in scored.path.name
    assert "system" in scored.path.name
    run = Run(scored.path)
    assert run.status == "finished"
    assert (run.scores, run.output_checks, run.samples) == (scored.scores, scored.output_checks, scored.samples)
    assert run.record == scored.record
    assert run.record.model.name == "system.txt"
    assert hashlib.sha256(outputs.read_bytes()).hexdigest() in run.record.model.revision
    assert lmtasks.score(run, resamples=20).scores == scored.scores


def test_the_report_of_outputs_is_readable(data, outputs, tmp_path):
    scored = score(data, outputs, output_dir=tmp_path / "runs")
    report = (scored.path / "report.md").read_text(encoding="utf-8")
    assert report.startswith("# echo with system.txt\n")
    for one in scored.scores:
        assert f"| {one.name} |" in report
        assert f"{one.value:.2f}" in report
        assert one.signature.replace("|", "\\|") in report
    for text in (*OUTPUTS, REFERENCES[0][0], "text a", scored.record.data.sha256):
        assert text in report
    assert "None" not in report


def test_outputs_and_a_run_that_said_the_same_compare_as_the_same(data, outputs, run, tmp_path):
    scored = score(data, outputs, output_dir=tmp_path / "runs")
    [comparison] = lmtasks.compare(run, scored.path, resamples=20, trials=20)
    assert comparison.verdict == "The runs score the same."
    assert [one.name for one in comparison.scores] == ["BLEU", "chrF", "TER"]


def test_an_output_folder_that_cannot_be_made_is_one_line(data, outputs):
    refused(RunError, lambda: score(data, outputs, output_dir=outputs), outputs, "output_dir")


# Settings


def test_settings_and_changes_say_the_same(data, outputs):
    options = ScoreOptions(data=str(data), predictions=str(outputs), metrics="chrf", resamples=0)
    assert values(lmtasks.score(make_task(), options)) == values(score(data, outputs, metrics=("chrf",)))
    assert values(lmtasks.score(make_task(), options, metrics=["ter"])) == values(score(data, outputs, metrics="ter"))


@pytest.mark.parametrize(
    ("changes", "error", "parts"),
    [
        ({"metrics": "chfr"}, UnknownNameError, "chrf"),
        ({"metric": "chrf"}, UnknownNameError, "metrics"),
        ({"metrics": "perplexity"}, UsageError, "loglikelihood=True"),
        ({"metrics": ("chrf", "loglikelihood")}, UsageError, "loglikelihood=True"),
        ({"resamples": 1}, UsageError, "at least 2"),
        ({"resamples": -5}, UsageError, "-5"),
        ({"language": "Chinese"}, UsageError, "Chinese"),
        ({"references": "gold", "columns": {"references": "gold"}}, UsageError, "twice"),
        ({"references": "nothing"}, DataError, 'no column "nothing"'),
        ({"columns": {"nothing": "gold"}}, DataError, 'no field "nothing"'),
        ({"data": "nowhere.jsonl"}, DataError, "nowhere.jsonl"),
        ({"split": "dev"}, DataError, '"dev"'),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_in_one_line(data, outputs, changes, error, parts):
    refused(error, lambda: score(**({"data": data, "predictions": outputs} | changes)), parts)


@pytest.mark.parametrize("references", [[[], []], [[], ["yes"]]], ids=["all", "some"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_questions_without_an_answer_leave_numbers_that_json_knows(tmp_path, references):
    data = jsonl(tmp_path / "data.jsonl", [{"references": texts} for texts in references])
    (tmp_path / "system.txt").write_text("one\ntwo\n")
    task = make_task(output=Generate(no_answer="none"), metrics=("exact_match",))
    scored = score(data, tmp_path / "system.txt", task, output_dir=tmp_path / "runs", resamples=100)
    record = (scored.path / "run.json").read_text(encoding="utf-8")
    json.loads(record, parse_constant=lambda name: pytest.fail(f"run.json holds {name}"))


@pytest.mark.parametrize("changes", [{"limit": 0}, {"limit": -1}, {"limit": "2"}, {"resamples": "many"}], ids=str)
def test_numbers_that_cannot_be_are_refused_by_name(data, outputs, changes):
    refused(UsageError, lambda: score(data, outputs, **changes), next(iter(changes)))


def test_a_list_of_outputs_is_refused_by_name(data):
    refused(UsageError, lambda: lmtasks.score(make_task(), data=data, predictions=list(OUTPUTS)), "predictions")


def test_the_home_folder_may_be_written_as_a_tilde(data, outputs, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert values(score(data, "~/system.txt")) == values(score(data, outputs))


def test_outputs_may_stand_in_a_nested_column(data, tmp_path):
    rows = [{"id": id, "output": {"text": text}} for id, text in zip(IDS, OUTPUTS, strict=True)]
    scored = score(data, jsonl(tmp_path / "system.jsonl", rows), columns={"prediction": "output.text"})
    assert predictions(scored) == list(OUTPUTS)


def test_a_row_that_lacks_the_column_is_named(data, tmp_path):
    rows = changed("c")
    rows[2]["predicton"] = rows[2].pop("prediction")
    path = jsonl(tmp_path / "system.jsonl", rows)
    refused(DataError, lambda: score(data, path), f"{path}, line 3: ", '"prediction"')


def test_lines_and_rows_give_the_same_predictions(data, tmp_path):
    texts = [f"  {text} " for text in OUTPUTS]
    (tmp_path / "system.txt").write_text("".join(f"{text}\n" for text in texts))
    rows = [{"id": id, "prediction": text} for id, text in zip(IDS, texts, strict=True)]
    lines, by_id = (score(data, path) for path in (tmp_path / "system.txt", jsonl(tmp_path / "system.jsonl", rows)))
    assert predictions(lines) == predictions(by_id)


# Runs that were damaged, and folders that cannot be written


@pytest.fixture
def finished(data, tmp_path) -> Run:
    return lmtasks.run(make_task(), data=data, model=answers(), output_dir=tmp_path / "runs")


def test_a_run_that_lost_samples_is_refused(finished):
    samples = finished.path / "samples.jsonl"
    lines = samples.read_text(encoding="utf-8").splitlines(keepends=True)
    for kept in (lines[:2], []):
        samples.write_text("".join(kept), encoding="utf-8")
        refused(RunError, lambda: lmtasks.score(finished), samples, "damaged", "of 4")
    samples.write_text("".join([*lines[:3], lines[0]]), encoding="utf-8")
    refused(RunError, lambda: lmtasks.score(finished), samples, "line 4: damaged", "occurs in line 1 too")
    samples.unlink()
    refused(RunError, lambda: lmtasks.score(finished), samples, "0 samples of 4")


def test_a_line_that_is_not_utf8_is_named(finished):
    samples = finished.path / "samples.jsonl"
    content = samples.read_bytes()
    samples.write_bytes(content.replace(b"nobody", b"\xff\xfe\xfd", 1))
    refused(RunError, lambda: lmtasks.score(finished), samples, "line ", "damaged")


def test_a_file_is_no_run_folder(finished):
    refused(RunError, lambda: lmtasks.compare(finished.path / "run.json", finished), "not a run folder")


def test_nothing_half_written_stays_behind(data, outputs, tmp_path, monkeypatch):
    def full(*_):
        raise RunError("No space left on device")

    monkeypatch.setattr("lmtasks.runs.rescore.write_record", full)
    refused(RunError, lambda: score(data, outputs, output_dir=tmp_path / "runs"), "No space left")
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_report_that_cannot_be_written_hides_no_earlier_error(data, tmp_path, monkeypatch):
    class Unplugged(FakeModel):
        def generate(self, requests, **settings):
            raise RunError("the model was unplugged")

    monkeypatch.setattr("lmtasks.api.running.write_report", full_report)
    run = partial(lmtasks.run, make_task(), data=data, model=Unplugged([]), output_dir=tmp_path / "runs")
    refused(RunError, run, "unplugged")


def full_report(run: Run) -> None:
    raise RunError(f"{run.path / 'report.md'}: cannot be written")


def test_health_and_its_intervals_are_those_of_the_run_in_whatever_order_it_finished(data, tmp_path):
    class Backwards(FakeModel):
        def generate(self, requests, **settings):
            yield from reversed(list(super().generate(requests, **settings)))

    model = Backwards(answers()._answers)
    run = lmtasks.run(make_task(), data=data, model=model, output_dir=tmp_path / "runs")
    assert lmtasks.score(run).output_checks == run.output_checks


def test_a_column_for_plain_lines_is_refused(data, outputs):
    refused(DataError, lambda: score(data, outputs, columns={"prediction": "text"}), outputs, '"text"')


def test_the_report_of_outputs_made_elsewhere_says_nothing_that_nobody_knows(data, outputs, tmp_path):
    scored = score(data, outputs, output_dir=tmp_path / "runs")
    report = (scored.path / "report.md").read_text(encoding="utf-8")
    assert "- 4 of 4 with references, scored\n- 0 of 4 empty" in report
    for unknown in ("limit of new tokens", "prompts lost", "interrupted run", "(unknown)"):
        assert unknown not in report
