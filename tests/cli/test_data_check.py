"""`lmtasks data check`: everything that is wrong with a file, at once."""

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
    return [remark.kind for remark in checked.remarks if remark.level == level]


def test_good_file_has_no_errors_and_is_described(tmp_path):
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
    errors = [remark for remark in checked.remarks if remark.level == "error"]
    lines = {int(remark.message.partition("line ")[2].partition(":")[0]) for remark in errors}
    assert lines == {4, 5, 6, 7, 8}
    assert not checked.ok
    assert call("data", "check", str(path), "--task", "qa").code == 1


def test_errors_of_one_kind_are_counted_beyond_the_first_ones(tmp_path):
    rows = [GOOD[0], *({"id": str(number), "question": "?", "answers": ["x"]} for number in range(50))]
    checked = api.check_data(write(tmp_path, rows), "qa")
    assert len(kinds(checked, "error")) == 21
    assert sum(remark.count for remark in checked.remarks if remark.level == "error") == 50


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


def test_splits_that_overlap_are_a_warning(tmp_path):
    rows = [{**row, "split": split} for split in ("train", "test") for row in GOOD]
    checked = api.check_data(write(tmp_path, rows), "qa")
    assert checked.splits == {"train": 3, "test": 3}
    assert checked.ok  # ids are unique within a split
    assert "split-overlap" in kinds(checked, "warning")
    assert api.check_data(write(tmp_path, rows), "qa", split="test").rows == 3


def test_row_without_a_split_is_an_error(tmp_path):
    checked = api.check_data(write(tmp_path, [*({**row, "split": "test"} for row in GOOD[:2]), GOOD[2]]), "qa")
    assert "no-split" in kinds(checked, "error")


def test_printed_lists_are_an_error(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("question,context,answers\nq1,c1,\"['a', 'b']\"\nq2,c2,\"['c']\"\n")
    assert kinds(api.check_data(path, "qa"), "error") == ["printed-list"]


def test_missing_column_is_an_error_that_map_mends(tmp_path):
    rows = [{"question": row["question"], "body": row["context"], "answers": row["answers"]} for row in GOOD]
    path = write(tmp_path, rows)
    assert kinds(api.check_data(path, "qa"), "error") == ["no-column"]
    assert api.check_data(path, "qa", columns={"context": "body"}).ok


def test_what_train_would_say_is_a_note(tmp_path):
    checked = api.check_data(write(tmp_path, GOOD[:1]), "qa")
    assert kinds(checked, "note") == ["train"]
    assert checked.ok


def test_json_says_the_same(tmp_path, call: Call):
    path = write(tmp_path, [*GOOD, "{broken"])
    result = call("data", "check", str(path), "--task", "qa", "--json")
    assert result.code == 1
    checked = json.loads(result.out)
    assert checked["ok"] is False
    assert [remark["kind"] for remark in checked["remarks"]] == ["unreadable-row"]
    assert checked["fields"]["references"]["filled"] == 2


def test_text_shows_columns_and_remarks(tmp_path, call: Call):
    result = call("data", "check", str(write(tmp_path, [*GOOD, "{broken"])), "--task", "qa")
    assert "3 good examples in 3 rows; 1 error: it would be refused" in result.out
    assert "question    question" in result.out
    assert "error    " in result.out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("none.jsonl", "qa"), DataError),
        (("data.jsonl", "nosuchtask"), UnknownNameError),
    ],
)
def test_file_or_task_that_is_not_there_is_an_error(arguments, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, GOOD)
    with pytest.raises(error):
        api.check_data(*arguments)
    with pytest.raises(UsageError):
        api.check_data("data.jsonl", "qa", language="Chinese")
