"""What the tests of data share: a task, files of every format, and the one line of a refusal."""

import csv
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from lmtasks import DataFile, Example, Field, Generate, Prompt, Task
from lmtasks.data import DataRequest, Dataset, load_dataset
from lmtasks.errors import LmtasksError

TYPED = ("data.jsonl", "data.parquet")


def make_task(**changes) -> Task:
    settings = {
        "name": "shorten",
        "version": 1,
        "summary": "Shorten a text.",
        "fields": {"document": Field(), "subject": Field(required=False)},
        "references": ("summary",),
        "prompts": {"plain": Prompt(user="$document")},
        "datasets": {"demo": DataFile(path=Path("demo-that-is-never-read.jsonl"))},
        "metrics": ("rouge",),
        "output": Generate(no_answer="none"),
    }
    return Task(**(settings | changes))


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    """Write rows in the format of the file's name, NaN as json and pyarrow write it."""
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_columns(path: Path, **columns: pyarrow.Array) -> Path:
    parquet.write_table(pyarrow.table(columns), path)
    return path


def load(path: Path, **request) -> Dataset:
    return load_dataset(make_task(), DataRequest(data=str(path), **request))


def examples(path: Path, **request) -> tuple[Example, ...]:
    return load(path, **request).examples


def refusal(path: Path | str, **request) -> str:
    """Return why data is refused, which is one line."""
    with pytest.raises(LmtasksError) as caught:
        load_dataset(make_task(), DataRequest(data=str(path), **request))
    message = str(caught.value)
    assert "\n" not in message
    return message
