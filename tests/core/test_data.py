import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from lmtasks import DataFile, Example, Field, Generate, HubDataset, Prompt, Task
from lmtasks.data import DataRequest, Dataset, load_dataset, load_fewshot
from lmtasks.data.hub import parse_hub
from lmtasks.errors import DataError, UnknownNameError
from lmtasks.text_utils import is_blank


def make_task(**changes) -> Task:
    settings = {
        "name": "shorten",
        "version": 1,
        "summary": "Shorten a text.",
        "fields": {"document": Field(columns=("article", "text"))},
        "references": ("summary",),
        "prompts": {"plain": Prompt(user="$document")},
        "datasets": {"demo": DataFile(path=Path("demo-that-is-never-read.jsonl"))},
        "metrics": ("rouge",),
    }
    return Task(**(settings | changes))


def question_task(**changes) -> Task:
    settings = {
        "name": "ask",
        "fields": {"question": Field()},
        "prompts": {"plain": Prompt(user="$question")},
        "references": ("answers.text", "answers", "answer"),
        "output": Generate(no_answer="unanswerable"),
    }
    return make_task(**(settings | changes))


def translation_task() -> Task:
    return make_task(
        name="translate/en-de",
        fields={"source": Field(columns=("translation.en", "en"))},
        prompts={"plain": Prompt(user="$source")},
        references=("translation.de", "de"),
        language="de",
        require_columns={"source_lang": "en", "target_lang": "de"},
    )


def write_jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="")
    return path


def write_csv(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def load(path: Path, task: Task | None = None, **request) -> Dataset:
    return load_dataset(task or make_task(), DataRequest(data=str(path), **request))


def only_example(path: Path, task: Task | None = None, **request) -> Example:
    [example] = load(path, task, **request).examples
    return example


def assert_refused(action, *parts: str) -> None:
    with pytest.raises(DataError) as caught:
        action()
    message = str(caught.value)
    assert [part for part in parts if part not in message] == [], message
    assert "\n" not in message


def documents(dataset) -> list[str]:
    return [example.inputs["document"] for example in dataset.examples]


ROWS = [{"id": f"r{n}", "document": f"text {n}", "summary": f"sum {n}"} for n in range(3)]
EXAMPLES = tuple(
    Example(id=f"r{n}", inputs={"document": f"text {n}"}, references=(f"sum {n}",), target=f"sum {n}") for n in range(3)
)


# Kinds of files


@pytest.mark.parametrize("name", ["data.jsonl", "data.ndjson", "DATA.JSONL", "data.csv", "data.tsv", "data.parquet"])
def test_formats_give_the_same_examples(tmp_path, name):
    path, suffix = tmp_path / name, Path(name).suffix.lower()
    if suffix == ".parquet":
        write_parquet(path, ROWS)
    elif suffix in (".csv", ".tsv"):
        write_csv(path, ROWS, "\t" if suffix == ".tsv" else ",")
    else:
        write_jsonl(path, *ROWS)
    dataset = load(path)
    assert dataset.examples == EXAMPLES
    assert (dataset.name, dataset.split) == (str(path), None)
    assert dataset.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_file_with_byte_order_mark_is_read(tmp_path):
    for name, text in (
        ("data.jsonl", '{"document": "a", "summary": "b"}\n'),
        ("data.csv", '"document",summary\na,b\n'),
        ("data.tsv", "document\tsummary\na\tb\n"),
    ):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8-sig")
        example = only_example(path)
        assert (example.inputs, example.references) == ({"document": "a"}, ("b",))


def test_blank_lines_are_skipped_but_counted(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('\n{"document": "a"}\n  \n{"document": ["b"]}\n', encoding="utf-8")
    assert documents(load(path, limit=1)) == ["a"]
    assert_refused(lambda: load(path), f"{path}, line 4", "a list")


def test_last_line_needs_no_newline(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"document": "a"}\n{"document": "b"}', encoding="utf-8")
    assert documents(load(path)) == ["a", "b"]


def test_unusual_line_breaks_inside_json_text_do_not_end_a_line(tmp_path):
    text = "a\u2028b\u0085c\x0bd"
    assert documents(load(write_jsonl(tmp_path / "data.jsonl", {"document": text}, {"document": "e"}))) == [text, "e"]


def test_csv_cell_keeps_quoted_newline_delimiter_and_quotes(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(b'document,summary\r\n"one,\r\ntwo ""three""",short\r\n')
    assert only_example(path).inputs["document"] == 'one,\r\ntwo "three"'


def test_csv_cell_may_be_longer_than_the_default_limit_of_csv(tmp_path):
    text = "x" * 200_000
    assert only_example(write_csv(tmp_path / "data.csv", [{"document": text, "summary": "s"}])).inputs == {
        "document": text
    }


def test_csv_row_with_more_cells_than_the_header_is_refused(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("document,summary\na,b\nc,d,e\n", encoding="utf-8")
    assert_refused(lambda: load(path), f"{path}, line 3", "more cells", "quotes", "','")


def test_csv_row_with_fewer_cells_has_no_last_columns(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("document,topic\na,b\nc\n", encoding="utf-8")
    assert [example.meta for example in load(path).examples] == [{"topic": "b"}, {}]


@pytest.mark.parametrize("line", ['"c,d', '"c"c,d'])
def test_csv_line_with_a_stray_quote_is_refused(tmp_path, line):
    path = tmp_path / "data.csv"
    path.write_text(f"document,summary\na,b\n{line}\n", encoding="utf-8")
    assert_refused(lambda: load(path), f"{path}, line 3")


def test_jsonl_that_is_not_utf8_names_file_and_line(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"document": "a"}\n{"document": "caf\xe9"}\n')
    assert_refused(lambda: load(path), f"{path}, line 2", "UTF-8")


def test_csv_that_is_not_utf8_names_the_file(tmp_path):
    path = tmp_path / "data.csv"
    path.write_bytes(b"document,summary\na,b\ncaf\xe9,c\n")
    assert_refused(lambda: load(path), str(path), "UTF-8")


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_utf16_file_is_refused_as_not_utf8(tmp_path, suffix):
    path = tmp_path / f"data{suffix}"
    path.write_text('{"document": "a"}\n', encoding="utf-16")
    assert_refused(lambda: load(path), str(path), "UTF-8")


def test_line_that_is_not_json_is_refused(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"document": "a"}\n{"document": \n', encoding="utf-8")
    assert_refused(lambda: load(path), f"{path}, line 2", "not JSON")


def test_json_nested_too_deeply_is_refused(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("[" * 100_000 + "\n", encoding="utf-8")
    assert_refused(lambda: load(path), f"{path}, line 1", "not JSON")


def test_json_number_of_thousands_of_digits_is_refused(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"document": ' + "1" * 5000 + "}\n", encoding="utf-8")
    assert_refused(lambda: load(path), f"{path}, line 1")


@pytest.mark.parametrize(("line", "kind"), [('["a"]', "list"), ('"a"', "str"), ("3", "int"), ("null", "NoneType")])
def test_json_line_that_is_not_an_object_is_refused(tmp_path, line, kind):
    path = tmp_path / "data.jsonl"
    path.write_text(f'{{"document": "a"}}\n{line}\n', encoding="utf-8")
    assert_refused(lambda: load(path), f"{path}, line 2", "expected an object", kind)


def test_file_that_is_not_parquet_is_refused(tmp_path):
    path = tmp_path / "data.parquet"
    path.write_text("this is no table", encoding="utf-8")
    assert_refused(lambda: load(path), str(path), "not a readable Parquet file")


def test_missing_file_is_refused(tmp_path):
    path = tmp_path / "nowhere.jsonl"
    assert_refused(lambda: load(path), str(path), "no such data file")


def test_file_of_unknown_kind_is_refused_with_the_known_ones(tmp_path):
    path = tmp_path / "data.xlsx"
    path.write_bytes(b"PK")
    assert_refused(lambda: load(path), str(path), ".jsonl", ".csv", ".tsv", ".parquet")


@pytest.mark.parametrize(
    ("name", "text"), [("a.jsonl", ""), ("b.jsonl", "\n\n"), ("c.csv", ""), ("d.csv", "document,summary\n")]
)
def test_file_without_rows_is_refused(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert_refused(lambda: load(path), str(path), "no data rows")


def test_unknown_data_set_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownNameError, match='"demmo".*Did you mean demo'):
        load_dataset(make_task(), DataRequest(data="demmo"))


def test_default_data_is_the_first_data_set_of_the_task(tmp_path):
    task = make_task(
        datasets={
            "first": DataFile(path=write_jsonl(tmp_path / "a.jsonl", {"document": "a"})),
            "second": DataFile(path=write_jsonl(tmp_path / "b.jsonl", {"document": "b"})),
        }
    )
    first, second = load_dataset(task, DataRequest()), load_dataset(task, DataRequest(data="second"))
    assert (first.name, documents(first)) == ("first", ["a"])
    assert (second.name, documents(second)) == ("second", ["b"])


# Fields and columns


def test_values_are_stripped_and_numbers_become_text(tmp_path):
    row = {"id": 7, "document": " \n a b \t", "summary": 3.5, "topic": True}
    assert only_example(write_jsonl(tmp_path / "data.jsonl", row)) == Example(
        id="7", inputs={"document": "a b"}, references=("3.5",), meta={"topic": "True"}
    )


def test_lone_surrogate_becomes_a_question_mark(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"document": "a\\ud800b", "summary": "c"}\n', encoding="utf-8")
    dataset = load(path)
    assert documents(dataset) == ["a?b"]
    assert len(dataset.sha256) == 64


def test_field_name_wins_over_its_other_columns(tmp_path):
    path = write_jsonl(tmp_path / "data.jsonl", {"text": "b", "article": "a", "document": "d"})
    assert only_example(path).inputs == {"document": "d"}
    path = write_jsonl(tmp_path / "data.jsonl", {"text": "b", "article": "a"})
    assert only_example(path).inputs == {"document": "a"}


def test_field_without_column_is_refused_with_columns_and_remedy(tmp_path):
    path = write_jsonl(tmp_path / "data.jsonl", {"documents": "a", "summary": "b"})
    assert_refused(
        lambda: load(path),
        f"{path}, line 1",
        'no field "document"',
        "document, article, text",
        "the columns are documents, summary",
        'Did you mean "documents"?',
        "columns={'document': 'COLUMN'}",
    )


@pytest.mark.parametrize("value", [{}, {"document": None}])
def test_row_without_required_field_is_refused(tmp_path, value):
    path = write_jsonl(tmp_path / "data.jsonl", {"document": "a"}, {"topic": "t", **value})
    assert_refused(lambda: load(path), f"{path}, line 2", '"document" is missing')


@pytest.mark.parametrize("value", ["", " \n "])
def test_row_whose_required_field_is_empty_is_refused(tmp_path, value):
    path = write_jsonl(tmp_path / "data.jsonl", {"document": "a"}, {"document": value})
    assert_refused(lambda: load(path), f"{path}, line 2", '"document" is empty')


def test_empty_cell_of_a_required_column_is_refused(tmp_path):
    path = write_csv(tmp_path / "data.csv", [{"document": "a", "summary": "b"}, {"document": "", "summary": "c"}])
    assert_refused(lambda: load(path), f"{path}, line 3", '"document" is missing')


def test_optional_field_may_be_absent_or_empty(tmp_path):
    task = make_task(fields={"document": Field(), "notes": Field(required=False)})
    path = write_jsonl(
        tmp_path / "data.jsonl", {"document": "a", "notes": "n"}, {"document": "b"}, {"document": "c", "notes": " "}
    )
    assert [dict(example.inputs) for example in load(path, task).examples] == [
        {"document": "a", "notes": "n"},
        {"document": "b"},
        {"document": "c"},
    ]


@pytest.mark.parametrize(("value", "kind"), [(["a"], "a list"), ({"a": "b"}, "an object")])
def test_list_or_object_where_text_was_expected_is_refused(tmp_path, value, kind):
    path = write_jsonl(tmp_path / "data.jsonl", {"document": "a"}, {"document": value})
    assert_refused(
        lambda: load(path), f"{path}, line 2", 'column "document"', kind, "expected text", "columns={'FIELD': 'COLUMN'}"
    )


def test_other_columns_become_meta_as_text(tmp_path):
    row = {
        "id": "a",
        "document": "d",
        "summary": "s",
        "language": "en",
        "split": "test",
        "topic": " travel ",
        "year": 2024,
        "none": None,
        "empty": "",
        "tags": ["x"],
    }
    assert only_example(write_jsonl(tmp_path / "data.jsonl", row)).meta == {"topic": "travel", "year": "2024"}


def test_field_column_with_a_dot_is_not_meta(tmp_path):
    path = write_csv(tmp_path / "data.csv", [{"translation.en": "Hello", "translation.de": "Hallo", "topic": "t"}])
    example = only_example(path, translation_task())
    assert (example.inputs, example.references) == ({"source": "Hello"}, ("Hallo",))
    assert example.meta == {"topic": "t"}


def test_nested_columns_are_reached_by_dots(tmp_path):
    row = {"translation": {"en": "Hello", "de": "Hallo", "fr": "Salut"}, "topic": "t"}
    for path in (write_jsonl(tmp_path / "a.jsonl", row), write_parquet(tmp_path / "a.parquet", [row])):
        example = only_example(path, translation_task())
        assert (example.inputs, example.references) == ({"source": "Hello"}, ("Hallo",))
        assert example.meta == {"topic": "t"}


# --map


def test_map_names_columns_of_fields_references_id_and_language(tmp_path):
    row = {"document": "no", "corps": "d", "resume": "s", "cle": "k", "langue": "fr", "summary": "x", "id": "1"}
    columns = {"document": "corps", "references": "resume", "id": "cle", "language": "langue"}
    example = only_example(write_jsonl(tmp_path / "data.jsonl", row), columns=columns)
    assert example == Example(
        id="k",
        inputs={"document": "d"},
        references=("s",),
        target="s",
        language="fr",
        meta={"document": "no", "summary": "x", "id": "1"},
    )


def test_mapped_references_win_over_the_list_of_references(tmp_path):
    row = {"document": "d", "references": ["a", "b"], "gold": "g"}
    path = write_jsonl(tmp_path / "data.jsonl", row)
    assert only_example(path).references == ("a", "b")
    assert only_example(path, columns={"references": "gold"}).references == ("g",)


def test_map_reaches_into_nested_columns(tmp_path):
    path = write_jsonl(tmp_path / "data.jsonl", {"page": {"body": "d"}, "gold": [{"short": "a"}, {"short": "b"}]})
    example = only_example(path, columns={"document": "page.body", "references": "gold.short"})
    assert (example.inputs, example.references) == ({"document": "d"}, ("a", "b"))


def test_map_to_an_unknown_field_is_refused_with_the_known_ones(tmp_path):
    path = write_jsonl(tmp_path / "data.jsonl", {"document": "a"})
    assert_refused(
        lambda: load(path, columns={"dokument": "document"}),
        str(path),
        '"shorten" has no field "dokument"',
        "document, references, id, language",
    )


@pytest.mark.parametrize("name", ["document", "references", "id", "language"])
def test_map_to_an_unknown_column_is_refused_and_the_nearest_offered(tmp_path, name):
    path = write_jsonl(tmp_path / "data.jsonl", {"document": "a", "highlights": "b"})
    assert_refused(
        lambda: load(path, columns={name: "highlight"}),
        str(path),
        'no column "highlight"',
        "document, highlights",
        'Did you mean "highlights"?',
    )


def test_map_of_the_user_wins_over_the_data_set(tmp_path):
    path = write_jsonl(tmp_path / "data.jsonl", {"one": "1", "two": "2"})
    task = make_task(datasets={"demo": DataFile(path=path, columns={"document": "one"})})
    assert documents(load_dataset(task, DataRequest())) == ["1"]
    assert documents(load_dataset(task, DataRequest(columns={"document": "two"}))) == ["2"]


# References


@pytest.mark.parametrize("column", ["summary", "references", "reference", "target"])
def test_references_are_read_from_every_known_column(tmp_path, column):
    path = write_jsonl(tmp_path / "data.jsonl", {"document": "a", column: "b"})
    assert only_example(path).references == ("b",)


def test_reference_columns_of_the_task_win_over_general_ones(tmp_path):
    path = write_jsonl(tmp_path / "data.jsonl", {"document": "a", "target": "t", "reference": "r", "summary": "s"})
    assert only_example(path).references == ("s",)


@pytest.mark.parametrize("single", ["summary", "reference", "target"])
def test_list_of_references_wins_over_the_single_column_row_by_row(tmp_path, single):
    path = write_jsonl(
        tmp_path / "data.jsonl",
        {"document": "a", single: "one", "references": ["two", "three"]},
        {"document": "b", single: "four"},
        {"document": "c", "references": ["five"]},
        {"document": "d", single: "six", "references": None},
    )
    examples = load(path).examples
    assert [example.references for example in examples] == [("two", "three"), ("four",), ("five",), ("six",)]
    assert [example.answer for example in examples] == ["one", "four", "five", "six"]


def test_answers_may_be_a_list_in_an_object(tmp_path):
    row = {"question": "q", "answers": {"text": ["Paris", "the city of Paris"], "answer_start": [3, 9]}}
    for path in (write_jsonl(tmp_path / "a.jsonl", row), write_parquet(tmp_path / "a.parquet", [row])):
        example = only_example(path, question_task())
        assert example.references == ("Paris", "the city of Paris")
        assert example.answer == "Paris"
        assert example.meta == {}


def test_answers_may_be_a_list_of_objects(tmp_path):
    row = {"question": "q", "answers": [{"text": "Paris", "answer_start": 3}, {"text": "France", "answer_start": 9}]}
    path = write_jsonl(tmp_path / "data.jsonl", row)
    assert only_example(path, question_task()).references == ("Paris", "France")


@pytest.mark.parametrize(
    ("answers", "other"),
    [
        ([], ["a"]),
        ([""], ["a"]),
        ("", "a"),
        ({"text": [], "answer_start": []}, {"text": ["a"], "answer_start": [0]}),
        ([], [{"text": "a"}]),
    ],
)
def test_empty_list_of_answers_means_no_answer(tmp_path, answers, other):
    path = write_jsonl(
        tmp_path / "data.jsonl", {"question": "p", "answers": answers}, {"question": "q", "answers": other}
    )
    unanswerable, answerable = load(path, question_task()).examples
    assert (unanswerable.references, unanswerable.answer) == (("",), "unanswerable")
    assert (answerable.references, answerable.answer) == (("a",), "a")


def test_empty_list_of_answers_is_refused_without_no_answer(tmp_path):
    path = write_jsonl(tmp_path / "data.jsonl", {"question": "p", "answers": ["a"]}, {"question": "q", "answers": []})
    assert_refused(
        lambda: load(path, question_task(output=Generate())), f"{path}, line 2", 'column "answers"', "no reference"
    )


def test_data_without_references_has_none(tmp_path):
    example = only_example(write_jsonl(tmp_path / "data.jsonl", {"document": "a", "topic": "b"}))
    assert (example.references, example.target, example.answer) == ((), None, None)


def test_row_without_reference_among_rows_with_one_is_refused(tmp_path):
    path = write_jsonl(tmp_path / "data.jsonl", {"document": "a", "summary": "s"}, {"document": "b"})
    assert_refused(lambda: load(path), f"{path}, line 2", "no reference", "column summary", "other rows")


@pytest.mark.parametrize("value", [{"a": "b"}, ["a", {"b": "c"}], [["a"]]])
def test_reference_that_is_not_text_is_refused(tmp_path, value):
    path = write_jsonl(tmp_path / "data.jsonl", {"document": "a", "summary": value})
    assert_refused(lambda: load(path), f"{path}, line 1", 'column "summary"', "expected text or a list of texts")


# Ids


def test_rows_without_id_are_numbered_from_one(tmp_path):
    for path in (
        write_jsonl(tmp_path / "a.jsonl", {"document": "a"}, {"document": "b"}),
        write_parquet(tmp_path / "a.parquet", [{"document": "a"}, {"document": "b"}]),
    ):
        assert [example.id for example in load(path).examples] == ["1", "2"]


@pytest.mark.parametrize("missing", [None, "", " \u200b"])
def test_rows_without_id_among_others_are_numbered_with_a_warning(tmp_path, missing, caplog):
    rows = [{"id": "x", "document": "a"}, {"id": missing, "document": "b"}, {"id": missing, "document": "c"}]
    path = write_jsonl(tmp_path / "data.jsonl", *rows)
    assert [example.id for example in load(path).examples] == ["x", "2", "3"]
    [message] = [record.getMessage() for record in caplog.records]
    assert message.startswith(f'{path}: 2 of 3 rows have no id in column "id"')


@pytest.mark.parametrize("column", ["id", "language", "lang"])
def test_object_for_an_id_or_a_language_is_refused(tmp_path, column):
    path = write_jsonl(tmp_path / "data.jsonl", {"document": "a", column: {"oid": "b"}})
    assert_refused(lambda: load(path), f'{path}, line 1: column "{column}" holds an object (of oid), expected text')
    path = write_jsonl(tmp_path / "both.jsonl", {"document": "a", "language": {"oid": "b"}, "lang": "de"})
    assert load(path).examples[0].language == "de"


def test_duplicate_id_is_refused_with_both_lines(tmp_path):
    rows = [{"id": "x", "document": "a"}, {"id": "y", "document": "b"}, {"id": "x", "document": "c"}]
    path = write_jsonl(tmp_path / "data.jsonl", *rows)
    assert_refused(lambda: load(path), 'id "x"', f"{path}, line 1", f"{path}, line 3")
    path = write_parquet(tmp_path / "data.parquet", rows)
    assert_refused(lambda: load(path), 'id "x"', f"{path}, row 1", f"{path}, row 3")


# Language and expectations


@pytest.mark.parametrize("column", ["language", "lang"])
def test_language_option_wins_over_the_column(tmp_path, column):
    path = write_jsonl(tmp_path / "data.jsonl", {"document": "a", column: "zh"}, {"document": "b"})
    assert [example.language for example in load(path).examples] == ["zh", None]
    assert [example.language for example in load(path, language="de").examples] == ["de", "de"]


def test_data_of_another_language_pair_is_refused(tmp_path):
    rows = [{"en": "a", "de": "b", "target_lang": "de"}, {"en": "c", "de": "d", "target_lang": "fr"}]
    path = write_jsonl(tmp_path / "data.jsonl", *rows)
    assert_refused(
        lambda: load(path, translation_task()), f"{path}, line 2", 'target_lang is "fr"', '"translate/en-de"', '"de"'
    )


@pytest.mark.parametrize("language", ["de", "de-CH"])
def test_data_of_another_region_is_accepted(tmp_path, language):
    path = write_jsonl(tmp_path / "data.jsonl", {"en": "a", "de": "b", "target_lang": language})
    assert only_example(path, translation_task()).references == ("b",)


# Splits and limits


def split_rows(*splits: str) -> list[dict[str, str]]:
    return [{"document": f"{split} {n}", "summary": "s", "split": split} for n in range(2) for split in splits]


@pytest.mark.parametrize(
    ("splits", "scored"),
    [
        (("train", "dev", "validation", "test"), "test"),
        (("train", "dev", "validation"), "validation"),
        (("train", "dev"), "dev"),
        (("other", "train"), "train"),
    ],
)
def test_split_defaults_to_test_validation_dev_train(tmp_path, splits, scored):
    dataset = load(write_jsonl(tmp_path / "data.jsonl", *split_rows(*splits)))
    assert (dataset.split, documents(dataset)) == (scored, [f"{scored} 0", f"{scored} 1"])


def test_split_option_chooses_the_split(tmp_path):
    for path in (
        write_jsonl(tmp_path / "data.jsonl", *split_rows("test", "train")),
        write_csv(tmp_path / "data.csv", split_rows("test", "train")),
    ):
        dataset = load(path, split="train")
        assert (dataset.split, documents(dataset)) == ("train", ["train 0", "train 1"])


def test_unknown_split_is_refused_with_known_ones(tmp_path):
    path = write_jsonl(tmp_path / "data.jsonl", *split_rows("test", "train"))
    assert_refused(lambda: load(path, split="dev"), str(path), 'no split "dev"', "test, train")


def test_split_of_data_without_splits_is_refused(tmp_path):
    path = write_jsonl(tmp_path / "data.jsonl", {"document": "a"})
    assert_refused(lambda: load(path, split="test"), str(path), 'no split "test"', 'no column "split"')


def test_splits_with_unusual_names_need_the_option(tmp_path):
    path = write_jsonl(tmp_path / "data.jsonl", *split_rows("easy", "hard"))
    assert_refused(lambda: load(path), str(path), "with split", "easy, hard")
    assert documents(load(path, split="hard")) == ["hard 0", "hard 1"]


@pytest.mark.parametrize("limit", [None, 2])
def test_row_without_a_split_among_others_is_refused(tmp_path, limit):
    path = write_jsonl(tmp_path / "data.jsonl", {"document": "stray", "summary": "s"}, *split_rows("train", "test"))
    assert_refused(lambda: load(path, limit=limit), f"{path}, line 1", 'no value in column "split"')


def test_split_may_be_a_number(tmp_path):
    path = write_jsonl(tmp_path / "data.jsonl", {"document": "a", "split": 0}, {"document": "b", "split": 1})
    assert_refused(lambda: load(path), "with split: 0, 1")
    assert documents(load(path, split="1")) == ["b"]


def test_limit_stops_reading_after_the_first_examples(tmp_path):
    path = write_jsonl(tmp_path / "data.jsonl", *split_rows("train", "test"))
    assert documents(load(path, limit=1)) == ["test 0"]
    assert documents(load(path, limit=9)) == ["test 0", "test 1"]
    path = tmp_path / "broken.jsonl"
    path.write_text('{"document": "a"}\n{"document": "b"}\nnot JSON\n', encoding="utf-8")
    assert documents(load(path, limit=2)) == ["a", "b"]
    assert_refused(lambda: load(path), f"{path}, line 3")


# Hashes


def test_hash_is_of_the_examples_and_not_of_the_file(tmp_path):
    jsonl, table = write_jsonl(tmp_path / "data.jsonl", *ROWS), write_csv(tmp_path / "data.csv", ROWS)
    frame = write_parquet(tmp_path / "data.parquet", ROWS)
    assert load(jsonl).sha256 == load(table).sha256 == load(frame).sha256
    assert len({load(jsonl).file_sha256, load(table).file_sha256, load(frame).file_sha256}) == 3


def test_hash_is_the_same_in_jsonl_and_csv_without_ids(tmp_path):
    rows = [{"document": row["document"], "summary": row["summary"]} for row in ROWS]
    jsonl, table = write_jsonl(tmp_path / "data.jsonl", *rows), write_csv(tmp_path / "data.csv", rows)
    assert load(jsonl).sha256 == load(table).sha256


@pytest.mark.parametrize("change", [{"id": "z"}, {"document": "z"}, {"summary": "z"}, {"language": "en"}])
def test_hash_changes_with_every_part_of_an_example(tmp_path, change):
    before = load(write_jsonl(tmp_path / "data.jsonl", *ROWS)).sha256
    assert load(write_jsonl(tmp_path / "data.jsonl", *ROWS[:2], ROWS[2] | change)).sha256 != before


def test_hash_changes_with_the_target(tmp_path):
    row = {"document": "a", "references": ["b", "c"]}
    first = load(write_jsonl(tmp_path / "data.jsonl", row | {"summary": "b"}))
    second = load(write_jsonl(tmp_path / "data.jsonl", row | {"summary": "c"}))
    assert first.examples[0].references == second.examples[0].references
    assert first.sha256 != second.sha256


def test_hash_does_not_change_with_meta(tmp_path):
    before = load(write_jsonl(tmp_path / "data.jsonl", *ROWS)).sha256
    assert load(write_jsonl(tmp_path / "data.jsonl", *ROWS[:2], ROWS[2] | {"topic": "t"})).sha256 == before


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("property")


# CSV holds no NUL character, and what nobody can see is no text.
CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
TEXTS = st.text(CHARACTERS, max_size=40).filter(lambda text: not is_blank(text))


@settings(max_examples=60, deadline=None, database=None)
@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_texts_are_read_back_from_jsonl_and_csv(folder, pairs):
    rows = [
        {"id": f"r{number}", "text": text, "summary": summary, "topic": text}
        for number, (text, summary) in enumerate(pairs)
    ]
    jsonl, table = load(write_jsonl(folder / "any.jsonl", *rows)), load(write_csv(folder / "any.csv", rows))
    assert jsonl.examples == tuple(
        Example(
            id=f"r{number}",
            inputs={"document": text.strip()},
            references=(summary.strip(),),
            target=summary.strip(),
            meta={"topic": text.strip()},
        )
        for number, (text, summary) in enumerate(pairs)
    )
    assert table.examples == jsonl.examples
    assert table.sha256 == jsonl.sha256


# Few-shot


def demo_with_train(tmp_path, count: int = 4) -> DataFile:
    rows = [{"document": f"demo {n}", "summary": f"sum {n}", "split": "train"} for n in range(count)]
    return DataFile(path=write_jsonl(tmp_path / "demo.jsonl", *rows, *split_rows("test")))


def draw(task: Task, dataset: Dataset, count: int = 2, seed: int = 0, data: str | None = None) -> list[str]:
    shown = load_fewshot(task, dataset, count=count, seed=seed, data=data)
    return [example.inputs["document"] for example in shown.examples]


def test_fewshot_draw_depends_on_the_seed(tmp_path):
    task = make_task(datasets={"demo": demo_with_train(tmp_path, count=40)})
    dataset = load_dataset(task, DataRequest())
    draws = [tuple(draw(task, dataset, count=5, seed=seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 5


def test_fewshot_examples_come_from_another_split_of_the_same_data(tmp_path):
    path = write_jsonl(tmp_path / "data.jsonl", *split_rows("test", "train", "dev"))
    task = make_task(datasets={"demo": demo_with_train(tmp_path)})
    shown = load_fewshot(task, load(path, task), count=2, seed=0, data=None)
    assert (shown.pool.name, shown.pool.split) == (str(path), "train")
    assert sorted(example.inputs["document"] for example in shown.examples) == ["train 0", "train 1"]
    assert sorted(draw(task, load(path, task, split="train"))) == ["dev 0", "dev 1"]


def test_fewshot_examples_use_the_same_map(tmp_path):
    rows = [{"corps": f"{split} {n}", "summary": "s", "split": split} for split in ("train", "test") for n in (1, 2)]
    path = write_jsonl(tmp_path / "data.jsonl", *rows)
    task = make_task(datasets={"demo": demo_with_train(tmp_path)})
    dataset = load(path, task, columns={"document": "corps"})
    assert sorted(draw(task, dataset)) == ["train 1", "train 2"]


@pytest.mark.parametrize("rows", [[{"document": "own", "summary": "s"}], split_rows("test")])
def test_fewshot_examples_come_from_the_demo_without_other_splits(tmp_path, rows):
    task = make_task(datasets={"demo": demo_with_train(tmp_path)})
    dataset = load(write_jsonl(tmp_path / "data.jsonl", *rows), task)
    shown = load_fewshot(task, dataset, count=4, seed=0, data=None)
    assert (shown.pool.name, shown.pool.split) == ("demo", "train")
    assert sorted(example.inputs["document"] for example in shown.examples) == [f"demo {n}" for n in range(4)]


def test_fewshot_examples_come_from_fewshot_data(tmp_path):
    task = make_task(datasets={"demo": demo_with_train(tmp_path)})
    path = write_jsonl(tmp_path / "shots.jsonl", {"document": "shot", "summary": "s"})
    assert draw(task, load_dataset(task, DataRequest()), count=1, data=str(path)) == ["shot"]


def test_fewshot_skips_scored_and_unanswered_examples(tmp_path):
    task = question_task(fields={"document": Field()}, prompts={"plain": "$document"})
    dataset = load(write_jsonl(tmp_path / "data.jsonl", {"id": "s", "document": "scored", "answers": ["a"]}), task)
    path = write_jsonl(
        tmp_path / "shots.jsonl",
        {"id": "other id", "document": "scored", "answers": ["a"]},
        {"document": "shown", "answers": ["a"]},
        {"document": "none", "answers": []},
    )
    assert sorted(draw(task, dataset, data=str(path))) == ["none", "shown"]
    assert_refused(
        lambda: draw(task, dataset, count=3, data=str(path)), str(path), "2 different examples", "3 were asked for"
    )
    path = write_jsonl(tmp_path / "unanswered.jsonl", {"document": "x"}, {"document": "y"})
    assert_refused(lambda: draw(task, dataset, count=1, data=str(path)), "0 different examples")


@pytest.mark.parametrize(
    "copy",
    [
        "SCORED text",
        " scored\n text",
        "scored\u00a0text",
        "Scored  Text ",
        "sco\u00adred\u200b text\ufeff",
        "\u200escored\u200d text\u2060",
        "scored\x07 text",
        "\uff33cored\u3000text",
        "scored \U0001d42dext",
        "\u3164scored text",
    ],
)
def test_fewshot_skips_examples_that_read_like_scored_ones(tmp_path, copy):
    dataset = load(write_jsonl(tmp_path / "data.jsonl", {"document": "scored text", "summary": "s"}))
    path = write_jsonl(tmp_path / "shots.jsonl", {"document": copy, "summary": "s"}, {"document": "o", "summary": "s"})
    assert draw(make_task(), dataset, count=1, data=str(path)) == ["o"]
    assert_refused(lambda: draw(make_task(), dataset, count=2, data=str(path)), "1 different examples to show")


def test_fewshot_shows_duplicates_once(tmp_path):
    dataset = load(write_jsonl(tmp_path / "data.jsonl", {"document": "scored", "summary": "s"}))
    again = ("same", "Same", "\uff53ame\u200b")
    rows = [{"document": text, "summary": f"s{index}"} for index, text in enumerate((*again, "other"))]
    path = write_jsonl(tmp_path / "shots.jsonl", *rows)
    for seed in range(5):
        assert sorted(draw(make_task(), dataset, count=2, seed=seed, data=str(path))) == ["other", "same"]
    assert_refused(lambda: draw(make_task(), dataset, count=3, data=str(path)), "2 different examples")


def test_fewshot_skips_examples_that_differ_in_composition(tmp_path):
    dataset = load(write_jsonl(tmp_path / "data.jsonl", {"document": "caf\u00e9", "summary": "s"}))
    path = write_jsonl(tmp_path / "s.jsonl", {"document": "cafe\u0301", "summary": "s"})
    assert_refused(lambda: draw(make_task(), dataset, count=1, data=str(path)), "0 different examples to show")


def test_fewshot_with_too_few_examples_names_the_options(tmp_path):
    task = make_task(datasets={"demo": demo_with_train(tmp_path)})
    dataset = load_dataset(task, DataRequest())
    assert_refused(
        lambda: draw(task, dataset, count=5),
        "demo",
        "4 different examples",
        "5 were asked for",
        "lower num_fewshot",
        "with fewshot_data",
    )


def test_fewshot_without_other_data_is_refused(tmp_path):
    task = make_task(datasets={"demo": DataFile(path=write_jsonl(tmp_path / "demo.jsonl", *split_rows("test")))})
    assert_refused(lambda: draw(task, load_dataset(task, DataRequest())), "demo", "no other split", "with fewshot_data")


# Data from functions


def from_function(function, **request) -> Dataset:
    return load_dataset(make_task(datasets={"demo": function}), DataRequest(**request))


def one(id: str, **inputs: str) -> Example:
    return Example(id=id, inputs=inputs)


def test_function_yields_the_requested_split():
    def examples(split):
        yield one("a", document=f"{split} a")
        yield one("b", document=f"{split} b")

    dataset = from_function(examples)
    assert (dataset.split, documents(dataset), dataset.file_sha256) == ("test", ["test a", "test b"], None)
    assert documents(from_function(examples, split="train", limit=1)) == ["train a"]
    assert [example.language for example in from_function(examples, language="zh").examples] == ["zh", "zh"]


def test_function_is_read_up_to_the_limit():
    def endless(split):
        number = 0
        while True:
            number += 1
            yield one(str(number), document="d")

    assert len(from_function(endless, limit=3).examples) == 3


def test_function_without_examples_lacks_the_split():
    def tests_alone(split):
        return [one("a", document="d")] if split == "test" else []

    assert_refused(lambda: from_function(tests_alone, split="train"), '"shorten"', '"demo"', '"train"')
    task = make_task(datasets={"demo": tests_alone})
    assert_refused(lambda: draw(task, load_dataset(task, DataRequest())), "no other split")


def failing_generator(split):
    yield one("a", document="d")
    raise RuntimeError("the disk is on fire")


def failing_function(split):
    raise RuntimeError("the disk is on fire")


@pytest.mark.parametrize("function", [failing_generator, failing_function])
def test_function_error_names_the_function(function):
    assert_refused(lambda: from_function(function), '"shorten"', '"demo"', "RuntimeError: the disk is on fire")


@pytest.mark.parametrize("returned", [None, ["no example"], [{"document": "d"}]])
def test_function_without_examples_is_refused(returned):
    assert_refused(lambda: from_function(lambda split: returned), '"shorten"', '"demo"')


def test_function_that_repeats_an_id_is_refused():
    assert_refused(
        lambda: from_function(lambda split: [one("a", document="d"), one("a", document="e")]),
        '"shorten"',
        '"demo"',
        '"a"',
        "unique",
    )


@pytest.mark.parametrize("inputs", [{}, {"document": ""}])
def test_function_without_a_required_field_is_refused(inputs):
    assert_refused(
        lambda: from_function(lambda split: [one("a", **inputs)]), '"demo"', 'example "a"', '"document" is missing'
    )


def test_function_refuses_map():
    assert_refused(
        lambda: from_function(lambda split: [one("a", document="d")], columns={"document": "text"}),
        "demo",
        "columns renames",
    )


# Hub


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("hub:squad", HubDataset(id="squad")),
        ("hub:org/name", HubDataset(id="org/name")),
        ("hub:org/name@v1.0", HubDataset(id="org/name", revision="v1.0")),
        ("hub:org/name#3.0.0", HubDataset(id="org/name", config="3.0.0")),
        (
            "hub:org/name@refs/convert/parquet#en-de",
            HubDataset(id="org/name", revision="refs/convert/parquet", config="en-de"),
        ),
    ],
)
def test_hub_id_is_parsed_with_revision_and_config(text, parsed):
    assert parse_hub(text) == parsed
    assert str(parsed) == text


@pytest.mark.parametrize("text", ["hub:", "hub:@main", "hub:#config", "hub:name@", "hub:name#"])
def test_hub_id_of_another_form_is_refused(text):
    assert_refused(lambda: load_dataset(make_task(), DataRequest(data=text)), f'"{text}"', "hub:ID@REVISION#CONFIG")


# `datasets` reads its environment when imported, so that this needs a process of its own. One for all tests.
HUB_SCRIPT = """
import json, sys
from lmtasks import DataFile, Generate, Task
from lmtasks.data import DataRequest, load_dataset, load_fewshot
from lmtasks.errors import DataError

folder, local = sys.argv[1:]
task = Task(
    name="shorten", version=1, summary="s", fields=["document"], references=("answers.text",), metrics=("rouge",),
    prompts={"plain": "$document"}, datasets={"demo": DataFile(path=local)}, output=Generate(no_answer="none"),
)

def refusal(**request):
    try:
        load_dataset(task, DataRequest(**request))
    except DataError as error:
        return str(error)

hub = load_dataset(task, DataRequest(data=folder))
shown = load_fewshot(task, hub, count=1, seed=0, data=None)
print(json.dumps({
    "name": hub.name,
    "split": hub.split,
    "references": [example.references for example in hub.examples],
    "same": hub.sha256 == load_dataset(task, DataRequest(data=local)).sha256,
    "limited": [example.id for example in load_dataset(task, DataRequest(data=folder, limit=1)).examples],
    "train": [example.id for example in load_dataset(task, DataRequest(data=folder, split="train")).examples],
    "shown": [shown.pool.split, *[example.id for example in shown.examples]],
    "no split": refusal(data=folder, split="dev"),
    "bad row": refusal(data=folder, columns={"document": "answers.text"}),
    "unreachable": refusal(data="hub:nobody/nothing@abc"),
}))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    home = tmp_path_factory.mktemp("hub")
    folder = home / "set"
    folder.mkdir()
    rows = [
        {"id": "a", "document": "one", "topic": "t", "answers": {"text": ["x", "y"], "answer_start": [0, 1]}},
        {"id": "b", "document": "two", "topic": None, "answers": {"text": [], "answer_start": []}},
    ]
    test = write_jsonl(folder / "test.jsonl", *rows)
    write_jsonl(folder / "train.jsonl", rows[0] | {"id": "c", "document": "three"})
    environment = os.environ | {"HF_HOME": str(home / "home"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", HUB_SCRIPT, f"hub:{folder}", str(test)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return {"folder": f"hub:{folder}", "stderr": done.stderr, **json.loads(done.stdout)}


def test_hub_folder_is_read_like_a_file(hub):
    assert (hub["name"], hub["split"]) == (hub["folder"], "test")
    assert hub["references"] == [["x", "y"], [""]]
    assert hub["same"] is True


def test_hub_data_has_splits_and_limits_like_any_other(hub):
    assert hub["limited"] == ["a"]
    assert hub["train"] == ["c"]
    assert hub["shown"] == ["train", "c"]
    assert hub["no split"] == f'{hub["folder"]}: no split "dev"; it has train, test'


def test_hub_row_error_names_data_set_split_and_row(hub):
    assert f'{hub["folder"]} split test, row 1: column "answers.text" holds a list' in hub["bad row"]


def test_hub_that_is_offline_is_one_line_with_a_remedy(hub):
    message = hub["unreachable"]
    assert message.startswith("hub:nobody/nothing@abc: the hub cannot be reached")
    assert "give its JSONL, CSV or Parquet file" in message
    assert "\n" not in message


def test_reading_hub_data_draws_no_progress_bars(hub):
    assert hub["stderr"] == ""


def test_object_column_loses_against_nested_columns(tmp_path):
    answer = {"value": "Paris", "aliases": ["Paris", "City of Light"]}
    path = write_jsonl(tmp_path / "data.jsonl", {"document": "a", "answer": answer})
    task = make_task(references=("answer", "answer.aliases"))
    assert load(path, task).examples[0].references == ("Paris", "City of Light")


def test_map_applies_to_fewshot_data_with_its_column(tmp_path):
    data = write_jsonl(tmp_path / "own.jsonl", {"corps": "own", "summary": "s"})
    mapped = write_jsonl(tmp_path / "mapped.jsonl", {"corps": "shown", "summary": "s"})
    named = write_jsonl(tmp_path / "named.jsonl", {"document": "named", "summary": "s"})
    dataset = load(data, columns={"document": "corps"})
    for pool, text in ((mapped, "shown"), (named, "named")):
        (example,) = load_fewshot(make_task(), dataset, count=1, seed=0, data=pool).examples
        assert example.inputs["document"] == text


def test_function_with_an_unknown_field_is_refused():
    stray = Example(id="a", inputs={"document": "d", "note": "n"}, references=("s",))
    task = make_task(datasets={"demo": lambda split: [stray]})
    assert_refused(lambda: load_dataset(task, DataRequest()), '"note" is not a field of the task')


def test_function_is_asked_for_test_first():
    only = Example(id="a", inputs={"document": "d"}, references=("s",))
    task = make_task(datasets={"demo": lambda split: [only] if split == "dev" else []})
    assert load_dataset(task, DataRequest()).split == "dev"
