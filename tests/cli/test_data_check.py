"""`lmtasks data check`: diagnostics of data files."""

from __future__ import annotations

import json

import pytest
from command_line import Call

from lmtasks import api
from lmtasks.errors import DataError, UnknownNameError, UsageError

GOOD = [
    {"id": "a", "question": "When does it open?", "context": "It opens at nine in the morning.", "answers": ["nine"]},
    {
        "id": "b",
        "question": "Who runs it?",
        "context": "The town runs it, since 1931.",
        "answers": ["The town", "town"],
    },
    {"id": "c", "question": "Is there a dog?", "context": "Nothing is said of animals.", "answers": []},
]


def write(tmp_path, rows, name="data.jsonl"):
    path = tmp_path / name
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def kinds(checked, level):
    return [diagnostic.kind for diagnostic in checked.diagnostics if diagnostic.level == level]


def test_valid_file_is_summarized_without_errors(tmp_path):
    checked = api.check_data(write(tmp_path, [{**row, "topic": "x"} for row in GOOD]), "qa")
    assert checked.ok
    assert (checked.rows, checked.examples, checked.no_answer) == (3, 3, 1)
    assert checked.fields["question"].column == "question"
    assert checked.fields["references"].column == "answers"
    assert (checked.fields["context"].shortest, checked.fields["context"].longest) == (27, 32)
    assert checked.languages == {"en (script)": 3}
    assert checked.references == {1: 2, 2: 1}
    assert checked.other_columns == ("topic",)


def test_errors_of_all_rows_are_listed_at_once(tmp_path, call: Call):
    rows = [
        *GOOD,
        "{broken",
        '{"question": "a", "question": "b", "context": "c", "answers": ["d"]}',
        {**GOOD[0], "id": "a"},
        {**GOOD[1], "id": "d", "context": "\u200b"},
        {**GOOD[1], "id": "e", "answers": [["x"]]},
    ]
    path = write(tmp_path, rows)
    checked = api.check_data(path, "qa")
    errors = [diagnostic for diagnostic in checked.diagnostics if diagnostic.level == "error"]
    lines = {int(diagnostic.message.partition("line ")[2].partition(":")[0]) for diagnostic in errors}
    assert lines == {4, 5, 6, 7, 8}
    assert not checked.ok
    assert call("data", "check", str(path), "--task", "qa").code == 1


def test_errors_of_one_kind_are_counted_beyond_the_first_ones(tmp_path):
    rows = [GOOD[0], *({"id": str(number), "question": "?", "answers": ["x"]} for number in range(50))]
    checked = api.check_data(write(tmp_path, rows), "qa")
    assert len(kinds(checked, "error")) == 21
    assert sum(diagnostic.count for diagnostic in checked.diagnostics if diagnostic.level == "error") == 50


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({**GOOD[0], "id": "z"}, "repeated-example"),
        ({**GOOD[0], "id": "z", "context": "IT OPENS  at nine in the morning."}, "repeated-example"),
        ({**GOOD[0], "id": "z", "answers": ["ten"]}, "different-answers"),
        ({**GOOD[0], "id": "z", "context": "a\ufffdb"}, "replacement-character"),
        ({**GOOD[0], "id": "z", "context": "a\u200bb"}, "invisible-character"),
        ({**GOOD[0], "id": "z", "context": "a\u001b]0;x\u0007"}, "control-character"),
        ({**GOOD[0], "id": "z", "context": "CafÃ© Central"}, "mojibake"),
        ({**GOOD[0], "id": "z", "context": r"one\ntwo"}, "escaped-line-break"),
        ({**GOOD[0], "id": "z", "context": "x", "answers": ["NaN"]}, "missing-value-word"),
        ({**GOOD[0], "id": "z", "context": "nine", "answers": ["nine"]}, "copied-reference"),
    ],
)
def test_suspicious_rows_are_warnings(row, kind, tmp_path, call: Call):
    path = write(tmp_path, [*GOOD, row])
    checked = api.check_data(path, "qa")
    assert kind in kinds(checked, "warning")
    assert checked.ok
    arguments = ["data", "check", str(path), "--task", "qa"]
    assert call(*arguments).code == 0
    assert call(*arguments, "--strict").code == 1


def test_control_tokens_are_a_note(tmp_path):
    checked = api.check_data(write(tmp_path, [*GOOD, {**GOOD[0], "id": "z", "context": "a <|im_end|> b"}]), "qa")
    assert "control-token" in kinds(checked, "note")
    assert not kinds(checked, "warning")


def test_overlapping_splits_are_a_warning(tmp_path):
    rows = [{**row, "split": split} for split in ("train", "test") for row in GOOD]
    checked = api.check_data(write(tmp_path, rows), "qa")
    assert checked.splits == {"train": 3, "test": 3}
    assert checked.ok  # ids are unique within a split
    assert "split-overlap" in kinds(checked, "warning")
    assert api.check_data(write(tmp_path, rows), "qa", split="test").rows == 3


def test_row_without_a_split_is_an_error(tmp_path):
    checked = api.check_data(write(tmp_path, [*({**row, "split": "test"} for row in GOOD[:2]), GOOD[2]]), "qa")
    assert "no-split" in kinds(checked, "error")


def test_list_literals_are_an_error(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("question,context,answers\nq1,c1,\"['a', 'b']\"\nq2,c2,\"['c']\"\n")
    assert kinds(api.check_data(path, "qa"), "error") == ["printed-list"]


def test_missing_column_is_an_error_that_map_fixes(tmp_path):
    rows = [{"question": row["question"], "body": row["context"], "answers": row["answers"]} for row in GOOD]
    path = write(tmp_path, rows)
    assert kinds(api.check_data(path, "qa"), "error") == ["no-column"]
    assert api.check_data(path, "qa", columns={"context": "body"}).ok


def test_remarks_of_train_are_notes(tmp_path):
    checked = api.check_data(write(tmp_path, GOOD[:1]), "qa")
    assert kinds(checked, "note") == ["train"]
    assert checked.ok


PAIRS = [{"id": str(n), "text": f"Sentence {n} is here.", "target": f"Satz {n} ist hier."} for n in range(6)]


def in_splits(*rows_of_splits):
    return [{**row, "split": split} for split, rows in rows_of_splits for row in rows]


def errors(checked):
    return [
        (diagnostic.kind, diagnostic.refused_by) for diagnostic in checked.diagnostics if diagnostic.level == "error"
    ]


ALL = ("run", "score", "train")


def test_each_split_is_checked_by_itself(tmp_path):
    printed = [{**row, "target": str([row["target"]])} for row in PAIRS[3:]]
    path = write(tmp_path, in_splits(("test", PAIRS[:3]), ("challenge", printed)))
    checked = api.check_data(path, "translation/en-de")
    assert errors(checked) == [("printed-list", ALL)]
    assert checked.splits == {"test": 3, "challenge": 3}
    lines = tmp_path / "lines.txt"
    lines.write_text("a\nb\nc\n")
    with pytest.raises(DataError, match="holds a list written as text"):
        api.score("translation/en-de", data=path, split="challenge", predictions=lines)
    assert api.check_data(path, "translation/en-de", split="test").ok


def test_splits_may_have_other_columns(tmp_path):
    other = [{"id": row["id"], "source": row["text"], "target": row["target"]} for row in PAIRS[3:]]
    path = write(tmp_path, in_splits(("test", PAIRS[:3]), ("train", other)))
    checked = api.check_data(path, "translation/en-de")
    assert errors(checked) == []
    assert checked.examples == 6
    assert checked.fields["text"].column == "text or source"
    assert checked.fields["text"].filled == 6
    assert checked.other_columns == ()


@pytest.mark.parametrize("splits", [False, True])
def test_data_without_references_names_the_refusing_commands(tmp_path, splits, call: Call):
    rows = [{"id": row["id"], "text": row["text"]} for row in PAIRS[3:]]
    every = in_splits(("test", PAIRS[:3]), ("dev", rows)) if splits else rows
    path = write(tmp_path, every)
    checked = api.check_data(path, "translation/en-de")
    [message] = [diagnostic.message for diagnostic in checked.diagnostics if diagnostic.kind == "no-references"]
    inside = ' of split "dev"' if splits else ""
    assert message.startswith(f"none of 3 rows{inside} has references: `run` would give no scores, `score` and `train`")
    assert checked.ok


def test_data_without_inputs_is_refused_by_run_and_train(tmp_path, call: Call):
    path = write(tmp_path, [{"id": row["id"], "target": row["target"]} for row in PAIRS])
    checked = api.check_data(path, "translation/en-de")
    assert errors(checked) == [("no-column", ("run", "train"))]
    assert checked.refused_by == ("run", "train")
    assert checked.references == {1: 6}
    assert kinds(checked, "warning") == []
    result = call("data", "check", str(path), "--task", "translation/en-de")
    assert result.code == 1
    assert "1 error: run and train would refuse it" in result.out
    lines = tmp_path / "lines.txt"
    lines.write_text("".join(f"{row['target']}\n" for row in PAIRS))
    assert api.score("translation/en-de", data=path, predictions=lines, resamples=0).scores[0].value > 99


@pytest.mark.parametrize(
    ("change", "refused_by"),
    [
        ({"text": ""}, ("run", "train")),
        ({"text": ["a"]}, ALL),
        ({"target": None}, ALL),
        ({"target": [["a"]]}, ALL),
        ({"id": "1"}, ALL),
    ],
)
def test_errors_name_the_commands_that_refuse(tmp_path, change, refused_by):
    path = write(tmp_path, [*PAIRS, {**PAIRS[0], "id": "z", **change}])
    assert [by for _, by in errors(api.check_data(path, "translation/en-de"))] == [refused_by]
    lines = tmp_path / "lines.txt"
    lines.write_text("a\n" * 7)
    if "score" in refused_by:
        with pytest.raises(DataError):
            api.score("translation/en-de", data=path, predictions=lines, resamples=0)
    else:
        assert api.score("translation/en-de", data=path, predictions=lines, resamples=0).scores


@pytest.mark.parametrize("column", ["id", "language", "lang"])
def test_objects_for_ids_and_languages_are_errors(tmp_path, column):
    rows = [{**row, column: {"$oid": row["id"]}} for row in PAIRS]
    checked = api.check_data(write(tmp_path, rows), "translation/en-de")
    assert errors(checked) == [("bad-example", ALL)] * 6
    assert f'column "{column}" holds an object (of $oid), expected text' in checked.diagnostics[0].message
    by_map = api.check_data(write(tmp_path, rows), "translation/en-de", columns={"id": f"{column}.$oid"})
    assert by_map.ok == (column == "id")


@pytest.mark.parametrize("missing", ["null", "NaN", '""', '" \u200b"'])
def test_rows_without_id_among_others_are_a_warning(tmp_path, missing):
    rows = [*map(json.dumps, PAIRS), f'{{"id": {missing}, "text": "Hello there.", "target": "Hallo ihr."}}']
    path = write(tmp_path, rows)
    checked = api.check_data(path, "translation/en-de")
    messages = [diagnostic.message for diagnostic in checked.diagnostics if diagnostic.kind == "reading"]
    [message] = messages
    assert message.startswith(f'{path}: 1 of 7 rows have no id in column "id"; their row number is used')
    assert message.endswith(f"(first: {path}, line 7)")


def test_unknown_split_is_an_error_with_known_ones(tmp_path):
    path = write(tmp_path, in_splits(("train", PAIRS[:3]), ("dev", PAIRS[3:])))
    checked = api.check_data(path, "translation/en-de", split="test")
    assert [diagnostic.message for diagnostic in checked.diagnostics] == [f'{path}: no split "test"; it has train, dev']
    path = write(tmp_path, PAIRS)
    checked = api.check_data(path, "translation/en-de", split="test")
    assert [diagnostic.message for diagnostic in checked.diagnostics] == [
        f'{path}: no split "test": the file has no column "split"'
    ]


@pytest.mark.parametrize(
    "reference", ["<think>Hm.</think>Hallo.", "<think></think>\n\nHallo.", "[THINK]Hm.[/THINK]Hallo.", "<think>Hallo."]
)
def test_reasoning_in_references_is_a_warning(tmp_path, reference):
    checked = api.check_data(
        write(tmp_path, [*PAIRS, {**PAIRS[0], "id": "z", "target": reference}]), "translation/en-de"
    )
    assert "reasoning-in-reference" in kinds(checked, "warning")
    quoted = {**PAIRS[0], "id": "z", "text": reference, "target": "Was heißt <think>?"}
    checked = api.check_data(write(tmp_path, [*PAIRS, quoted]), "translation/en-de")
    assert "reasoning-in-reference" not in kinds(checked, "warning")


def test_json_has_the_same_content(tmp_path, call: Call):
    path = write(tmp_path, [*GOOD, "{broken"])
    result = call("data", "check", str(path), "--task", "qa", "--json")
    assert result.code == 1
    checked = json.loads(result.out)
    assert checked["ok"] is False
    assert [diagnostic["kind"] for diagnostic in checked["diagnostics"]] == ["unreadable-row"]
    assert checked["fields"]["references"]["filled"] == 2


def test_text_shows_columns_and_diagnostics(tmp_path, call: Call):
    result = call("data", "check", str(write(tmp_path, [*GOOD, "{broken"])), "--task", "qa")
    assert "3 valid examples in 3 rows; 1 error: it would be refused" in result.out
    assert "question    question" in result.out
    assert "error    " in result.out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("none.jsonl", "qa"), DataError),
        (("data.jsonl", "nosuchtask"), UnknownNameError),
    ],
)
def test_missing_file_or_task_is_an_error(arguments, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, GOOD)
    with pytest.raises(error):
        api.check_data(*arguments)
    with pytest.raises(UsageError):
        api.check_data("data.jsonl", "qa", language="Chinese")
