"""Missing values and numbers: what becomes of them does not depend on the type that a file stores them in."""

import datetime
import decimal
import logging
import math
from pathlib import Path

import pyarrow
import pytest
from data_files import TYPED, examples, load, make_task, refusal, write, write_columns

from lmtasks import Example
from lmtasks.data import DataRequest, load_dataset, read_predictions
from lmtasks.errors import DataError
from lmtasks.plugins import Registry

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("name", TYPED)
@pytest.mark.parametrize("missing", [None, NAN, INF, -INF])
def test_missing_value_is_never_text(tmp_path: Path, name: str, missing: float | None):
    rows = [
        {"id": 7.5, "document": "a", "subject": 1.5, "summary": ["x"], "topic": 2.5, "language": "en"},
        {"id": missing, "document": "b", "subject": missing, "summary": ["y"], "topic": missing, "language": None},
    ]
    first, second = examples(write(tmp_path / name, rows))
    assert (first.id, first.inputs, first.meta) == ("7.5", {"document": "a", "subject": "1.5"}, {"topic": "2.5"})
    assert second == Example(id="2", inputs={"document": "b"}, references=("y",))


@pytest.mark.parametrize("name", TYPED)
@pytest.mark.parametrize("missing", [NAN, INF, -INF])
def test_missing_value_is_refused_where_text_is_required(tmp_path: Path, name: str, missing: float):
    path = write(tmp_path / name, [{"document": 1.5, "summary": 2.5}, {"document": missing, "summary": 2.5}])
    assert 'field "document" is missing' in refusal(path)
    path = write(tmp_path / name, [{"document": 1.5, "summary": 2.5}, {"document": 1.5, "summary": missing}])
    assert "no reference (column summary), though other rows have one" in refusal(path)
    path = write(tmp_path / name, [{"document": 1.5, "split": 1.0}, {"document": 1.5, "split": missing}])
    assert 'no value in column "split"' in refusal(path, split="1")


def test_number_beyond_a_float_is_missing(tmp_path: Path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"document": "a", "subject": 1e999, "topic": -1e999}\n')
    assert examples(path) == (Example(id="1", inputs={"document": "a"}),)


def test_cell_of_a_table_stays_as_it_is_written(tmp_path: Path):
    path = write(tmp_path / "data.csv", [{"id": "101.0", "document": "nan", "summary": "1931.0", "subject": "inf"}])
    [example] = examples(path)
    assert (example.id, example.inputs) == ("101.0", {"document": "nan", "subject": "inf"})
    assert example.references == ("1931.0",)


@pytest.mark.parametrize("name", TYPED)
def test_missing_prediction_is_an_empty_output(tmp_path: Path, name: str):
    rows = [{"id": 1, "prediction": 2.0}, {"id": 2, "prediction": NAN}, {"id": 3, "prediction": None}]
    answered = [Example(id=id, inputs={}) for id in "123"]
    assert read_predictions(write(tmp_path / name, rows), answered) == ["2", "", ""]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (101.0, "101"),
        (101, "101"),
        (3.14, "3.14"),
        (-0.0, "0"),
        (-2.0, "-2"),
        (2**53 + 2.0, "9007199254740994"),
        (1e16, "10000000000000000"),
        (2e16, "20000000000000000"),
        (1e23, "1" + "0" * 23),
        (1e-7, "0.0000001"),
        (0.00001, "0.00001"),
        (-1.5e-7, "-0.00000015"),
        (1e-30, "0." + "0" * 29 + "1"),
        (1e31, "1e+31"),
        (5e-324, "5e-324"),
        (True, "True"),
    ],
)
@pytest.mark.parametrize("name", TYPED)
def test_number_is_written_without_its_type(tmp_path: Path, name: str, number: float, text: str):
    row = {"id": number, "document": number, "summary": [number], "topic": number, "split": number}
    [example] = examples(write(tmp_path / name, [row]), split=text)
    assert example == Example(id=text, inputs={"document": text}, references=(text,), meta={"topic": text})


def test_integer_of_any_length_is_written_in_full(tmp_path: Path):
    [example] = examples(write(tmp_path / "data.jsonl", [{"document": 10**40 + 1}]))
    assert example.inputs["document"] == "1" + "0" * 39 + "1"


@pytest.mark.parametrize(
    ("array", "texts"),
    [
        (pyarrow.array([3.14, 1931.0, 123456792.0], pyarrow.float32()), ["3.14", "1931", "123456792"]),
        (pyarrow.array([1e-7, 1e20, -3e16], pyarrow.float32()), ["0.0000001", "1" + "0" * 20, "-3" + "0" * 16]),
        (pyarrow.array([3.14, 2.0], pyarrow.float16()), ["3.14", "2"]),
        (pyarrow.array([decimal.Decimal("1931.00"), decimal.Decimal("12.50")]), ["1931", "12.5"]),
        (pyarrow.array([decimal.Decimal("-0.00"), decimal.Decimal("1" * 38)]), ["0", "1" * 38]),
        (pyarrow.array([2**64 - 1], pyarrow.uint64()), ["18446744073709551615"]),
        (pyarrow.array(["x", "y", "x"]).dictionary_encode(), ["x", "y", "x"]),
        (pyarrow.array([3.14, 2.0], pyarrow.float32()).dictionary_encode(), ["3.14", "2"]),
        (pyarrow.array(["x"], pyarrow.large_string()), ["x"]),
        (pyarrow.array(["x"], pyarrow.string_view()), ["x"]),
        (pyarrow.array([datetime.date(2024, 5, 1)]), ["2024-05-01"]),
        # Beyond the years that Python knows.
        (pyarrow.array([10_000_000], pyarrow.date32()), ["29349-01-26"]),
    ],
)
def test_parquet_values_have_their_usual_text(tmp_path: Path, array: pyarrow.Array, texts: list[str]):
    path = write_columns(tmp_path / "data.parquet", document=array)
    assert [example.inputs["document"] for example in examples(path)] == texts


def test_small_floats_are_short_in_lists_and_objects_too(tmp_path: Path):
    small = pyarrow.float32()
    answers = pyarrow.array([[3.14, None, NAN], [2.0]], pyarrow.list_(small))
    nested = pyarrow.array(
        [{"of": [{"x": 3.14}]}, {"of": [{"x": 0.1}]}],
        pyarrow.struct([("of", pyarrow.list_(pyarrow.struct([("x", small)])))]),
    )
    path = write_columns(tmp_path / "data.parquet", document=pyarrow.array(["a", "b"]), summary=answers, nested=nested)
    assert [example.references for example in examples(path)] == [("3.14",), ("2",)]
    by_map = examples(path, columns={"references": "nested.of.x"})
    assert [example.references for example in by_map] == [("3.14",), ("0.1",)]


@pytest.mark.parametrize(
    "array",
    [
        pyarrow.array([0], pyarrow.timestamp("ns")),
        pyarrow.array([2**62], pyarrow.timestamp("us", "Nowhere/Unknown")),
        pyarrow.array([0], pyarrow.duration("s")),
        pyarrow.array([b"\xff"]),
        pyarrow.array([[("key", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int32())),
    ],
)
def test_value_without_text_form_is_refused_only_where_needed(
    tmp_path: Path, array: pyarrow.Array, caplog: pytest.LogCaptureFixture
):
    path = write_columns(tmp_path / "data.parquet", document=pyarrow.array(["a"]), other=array)
    assert examples(path) == (Example(id="1", inputs={"document": "a"}),)
    message = refusal(path, columns={"document": "other"})
    assert f'{path}, row 1: column "other" holds a value of type {str(array.type).split("<")[0]}' in message
    assert caplog.records == []


def test_pandas_integer_column_with_gaps_keeps_integers(tmp_path: Path):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "data.parquet"
    frame = pandas.DataFrame(
        {
            "id": [101, None, 103],
            "document": ["a", "b", "c"],
            "summary": [1931, 1932, None],
            "subject": ["x", None, NAN],
            "when": pandas.to_datetime(["2020-01-01", None, None]),
        }
    )
    frame.iloc[:2].to_parquet(path)
    assert [(example.id, example.references) for example in examples(path)] == [("101", ("1931",)), ("2", ("1932",))]
    frame.iloc[:2].to_json(tmp_path / "data.jsonl", orient="records", lines=True, date_format="iso")
    assert load(tmp_path / "data.jsonl").sha256 == load(path).sha256


def test_ids_that_are_the_same_number_are_refused(tmp_path: Path):
    path = write(tmp_path / "data.jsonl", [{"id": "101", "document": "a"}, {"id": 101.0, "document": "b"}])
    assert f'{path}, line 2: duplicate id "101", first seen at {path}, line 1' in refusal(path)


# Predictions of another format


def predictions(tmp_path: Path, name: str, ids: list[object], data: list[str]) -> list[str]:
    path = write(tmp_path / name, [{"id": id, "prediction": f"of {id}"} for id in ids])
    return read_predictions(path, [Example(id=id, inputs={}) for id in data])


@pytest.mark.parametrize(
    ("name", "given", "data"),
    [
        ("p.parquet", 101.0, "101.0"),
        ("p.jsonl", 101, "101.0"),
        ("p.csv", "101.0", "101"),
        ("p.csv", "7", "007"),
        ("p.csv", "3.10", "3.1"),
        ("p.csv", "1e+16", "10000000000000000"),
        ("p.csv", "1.5E-05", "0.000015"),
    ],
)
def test_ids_match_as_numbers_with_a_warning(
    tmp_path: Path, name: str, given: object, data: str, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING, "lmtasks.data"):
        assert predictions(tmp_path, name, [given], [data]) == [f"of {given}"]
    [message] = [record.getMessage() for record in caplog.records]
    assert "1 of 1 ids" in message
    assert f'"{data}" in the data' in message


@pytest.mark.parametrize(("given", "data"), [(101, "101"), (101.0, "101"), ("101", "101"), (2e16, "2" + "0" * 16)])
def test_ids_that_are_identical_match_without_a_warning(
    tmp_path: Path, given: object, data: str, caplog: pytest.LogCaptureFixture
):
    assert predictions(tmp_path, "p.jsonl", [given], [data]) == [f"of {given}"]
    assert caplog.records == []


def test_ids_that_are_ambiguous_numbers_match_as_text(tmp_path: Path):
    assert predictions(tmp_path, "p.csv", ["7", "007"], ["007", "7"]) == ["of 007", "of 7"]
    for given, data in ((["7.0", "007"], ["7", "8"]), (["7"], ["7.0", "007"]), (["1e3000"], ["1e3"]), (["x"], ["y"])):
        with pytest.raises(DataError, match="no prediction for"):
            predictions(tmp_path, "p.csv", given, data)


# Alternatives


@pytest.mark.parametrize("name", TYPED)
@pytest.mark.parametrize("padding", ["", "  ", None, "\u200b"])
def test_empty_reference_beside_another_is_padding(tmp_path: Path, name: str, padding: str | None):
    rows = [
        {"document": "a", "references": ["The train leaves at eight.", padding]},
        {"document": "b", "references": [padding, "x", padding, "y"]},
        {"document": "c", "references": [padding, padding]},
    ]
    assert [(example.references, example.answer) for example in examples(write(tmp_path / name, rows))] == [
        (("The train leaves at eight.",), "The train leaves at eight."),
        (("x", "y"), "x"),
        (("",), "none"),
    ]


def test_empty_reference_of_a_plugin_is_padding():
    def read(split: str) -> list[Example]:
        return [
            Example(id="a", inputs={"document": "d"}, references=("x", "", "\u200b"), target=" "),
            Example(id="b", inputs={"document": "d"}, references=("", " ")),
            Example(id="c", inputs={"document": "d"}),
        ]

    dataset = load_dataset(make_task(datasets={"demo": read}), DataRequest())
    assert [example.references for example in dataset.examples] == [("x",), ("",), ()]
    assert dataset.examples[0].answer == "x"


# Text that shows nothing

INVISIBLE = "\u200b\u2060\ufeff"


@pytest.mark.parametrize("name", ["data.jsonl", "data.csv", "data.parquet"])
def test_text_without_visible_characters_is_empty(tmp_path: Path, name: str):
    rows = [{"document": "a", "summary": "s"}, {"document": INVISIBLE, "summary": "s"}]
    assert 'field "document" is empty' in refusal(write(tmp_path / name, rows))
    rows = [{"id": INVISIBLE, "document": "a", "subject": INVISIBLE, "summary": INVISIBLE}]
    [example] = examples(write(tmp_path / name, rows))
    assert (example.id, example.inputs, example.references) == ("1", {"document": "a"}, ("",))
    answered = [Example(id="1", inputs={})]
    assert read_predictions(write(tmp_path / name, [{"id": "1", "prediction": INVISIBLE}]), answered) == [""]


def test_prediction_line_without_visible_characters_is_empty(tmp_path: Path):
    path = tmp_path / "system.txt"
    path.write_text(f"{INVISIBLE}\na{INVISIBLE}\n", encoding="utf-8")
    assert read_predictions(path, [Example(id=id, inputs={}) for id in "12"]) == ["", f"a{INVISIBLE}"]


@pytest.mark.parametrize(
    ("example", "problem"),
    [
        (Example(id="a", inputs={"document": INVISIBLE}), 'field "document" is missing'),
        (Example(id=INVISIBLE, inputs={"document": "d"}), "id is empty"),
    ],
)
def test_plugin_example_without_visible_text_is_refused(example: Example, problem: str):
    with pytest.raises(DataError, match=problem):
        load_dataset(make_task(datasets={"demo": lambda split: [example]}), DataRequest())


def test_rows_with_answers_of_another_shape_are_refused(tmp_path):
    """A list of texts is no list of objects without any, which would say that no answer is right."""
    path = tmp_path / "mixed.jsonl"
    path.write_text(
        '{"question": "q", "context": "c", "answers": ["nine"]}\n'
        '{"question": "r", "context": "c", "answers": [{"text": "ten"}]}\n'
    )
    with pytest.raises(DataError, match="line 1: no reference"):
        load_dataset(Registry().task("qa")[0], DataRequest(data=path))
