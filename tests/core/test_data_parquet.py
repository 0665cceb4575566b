"""Parquet files with damage or oddities: only what a task needs has to be readable."""

import logging
from pathlib import Path

import pyarrow
import pytest
from data_files import examples, load, refusal, write_columns
from pyarrow import parquet

from lmtasks import Example
from lmtasks.data import read_predictions
from lmtasks.errors import DataError

TEXTS = [f"text {number} " * 3 for number in range(3000)]
NOTES = [f"note {number} " * 3 for number in range(3000)]


def damaged(path: Path, column: int) -> Path:
    """Write a file with two columns, the pages of one of them overwritten."""
    parquet.write_table(pyarrow.table({"document": TEXTS, "note": NOTES}), path, use_dictionary=False)
    chunk = parquet.ParquetFile(path).metadata.row_group(0).column(column)
    content = bytearray(path.read_bytes())
    middle = chunk.data_page_offset + chunk.total_compressed_size // 2
    content[middle : middle + 400] = b"\xff" * 400
    path.write_bytes(content)
    return path


def not_utf8(texts: list[bytes]) -> pyarrow.Array:
    return pyarrow.array(texts, pyarrow.binary()).view(pyarrow.string())


def test_damaged_column_that_is_unused_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = damaged(tmp_path / "data.parquet", column=1)
    with caplog.at_level(logging.WARNING, "lmtasks.data"):
        dataset = load(path)
    assert [example.inputs["document"] for example in dataset.examples] == [text.strip() for text in TEXTS]
    [message] = [record.getMessage() for record in caplog.records]
    assert 'column "note"' in message
    assert str(path) in message
    assert "\n" not in message


def test_damaged_column_that_is_needed_is_named_with_its_row(tmp_path: Path):
    path = damaged(tmp_path / "data.parquet", column=0)
    assert refusal(path).startswith(f'{path}, row 1: column "document" holds damaged data (')


def test_text_that_is_not_utf8_affects_only_its_row(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = write_columns(
        tmp_path / "data.parquet",
        document=pyarrow.array(["a", "b", "c"]),
        note=not_utf8([b"x", b"caf\xe9", b"z"]),
    )
    assert [example.meta for example in examples(path)] == [{"note": "x"}, {}, {"note": "z"}]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    message = refusal(path, columns={"document": "note"})
    assert f'{path}, row 2: column "note" holds text that is not UTF-8' in message
    assert examples(path, columns={"document": "note"}, limit=1)[0].inputs == {"document": "x"}


def test_text_that_is_not_utf8_in_a_list_or_object_is_named(tmp_path: Path):
    inner = pyarrow.ListArray.from_arrays([0, 1, 2], not_utf8([b"x", b"\xff"]))
    path = write_columns(tmp_path / "data.parquet", document=pyarrow.array(["a", "b"]), summary=inner)
    assert f'{path}, row 2: column "summary" holds text that is not UTF-8 in its list' in refusal(path)


def test_object_with_an_unreadable_part_keeps_the_others(tmp_path: Path):
    answers = pyarrow.StructArray.from_arrays(
        [pyarrow.array(["x"]), pyarrow.array([2**62], pyarrow.timestamp("us", "Nowhere/Unknown"))], ["text", "when"]
    )
    path = write_columns(tmp_path / "data.parquet", document=pyarrow.array(["a"]), answers=answers)
    [example] = examples(path, columns={"references": "answers.text"})
    assert example.references == ("x",)


@pytest.mark.parametrize("inner", [False, True])
def test_duplicate_columns_are_refused(tmp_path: Path, inner: bool):
    both = [pyarrow.array(["a"]), pyarrow.array(["b"])]
    path = tmp_path / "data.parquet"
    if inner:
        pair = pyarrow.StructArray.from_arrays(both, ["text", "text"])
        table = pyarrow.table({"document": ["a"], "answers": pyarrow.ListArray.from_arrays([0, 1], pair)})
    else:
        table = pyarrow.table(both, names=["document", "document"])
    parquet.write_table(table, path)
    name = "answers.text" if inner else "document"
    assert refusal(path) == f'{path}: two columns are named "{name}"; rename one of them'


def test_columns_whose_names_differ_in_case_are_different(tmp_path: Path):
    path = write_columns(tmp_path / "data.parquet", document=pyarrow.array(["a"]), Document=pyarrow.array(["b"]))
    assert examples(path) == (Example(id="1", inputs={"document": "a"}, meta={"Document": "b"}),)


def test_columns_with_odd_names_are_distinct(tmp_path: Path):
    table = pyarrow.table({"": ["e"], "a.b": ["d"], "document": ["x"], "a": [{"b": "q"}]})
    parquet.write_table(table, tmp_path / "data.parquet")
    [example] = examples(tmp_path / "data.parquet", columns={"document": "a.b"})
    assert (example.inputs, example.meta) == ({"document": "d"}, {"": "e", "document": "x"})


@pytest.mark.parametrize("kept", [10, 1000, -4])
def test_truncated_file_is_one_line(tmp_path: Path, kept: int):
    path = tmp_path / "data.parquet"
    parquet.write_table(pyarrow.table({"document": TEXTS}), path)
    path.write_bytes(path.read_bytes()[:kept])
    assert refusal(path).startswith(f"{path}: not a readable Parquet file: ")


def test_file_without_columns_is_refused(tmp_path: Path):
    parquet.write_table(pyarrow.table({"a": [1, 2]}).select([]), tmp_path / "data.parquet")
    assert "data.parquet: " in refusal(tmp_path / "data.parquet")


def test_file_with_several_row_groups_is_read_in_order(tmp_path: Path):
    path = tmp_path / "data.parquet"
    parquet.write_table(pyarrow.table({"document": TEXTS, "note": NOTES}), path, row_group_size=700)
    dataset = load(path)
    assert [example.inputs["document"] for example in dataset.examples] == [text.strip() for text in TEXTS]
    assert [example.meta["note"] for example in dataset.examples] == [text.strip() for text in NOTES]


def test_prediction_that_is_not_text_is_named(tmp_path: Path):
    answered = [Example(id="1", inputs={})]
    for array, says in (
        (not_utf8([b"\xff"]), "no column can be read here|holds text that is not UTF-8"),
        (pyarrow.array([0], pyarrow.timestamp("s")), "holds a value of type timestamp"),
    ):
        path = write_columns(tmp_path / "p.parquet", id=pyarrow.array([1.0]), prediction=array)
        with pytest.raises(DataError, match=says) as caught:
            read_predictions(path, answered)
        assert f"{path}, row 1" in str(caught.value)
