"""Hub sets follow the rules of files: the same values, and one line for what cannot be read."""

import json
import math
import os
import subprocess
import sys

import pyarrow
import pytest
from data_files import write
from pyarrow import parquet

# `datasets` reads its environment when imported, so that this needs a process of its own. One for all tests.
SCRIPT = """
import json, sys
from lmtasks import DataFile, Field, Generate, Task
from lmtasks.data import DataRequest, load_dataset
from lmtasks.errors import LmtasksError

task = Task(
    name="shorten", version=1, summary="s", fields={"document": Field(), "subject": Field(required=False)},
    references=("summary",), metrics=("rouge",), prompts={"plain": "$document"},
    datasets={"demo": DataFile(path="x.jsonl")}, output=Generate(no_answer="none"),
)

def read(**request):
    try:
        dataset = load_dataset(task, DataRequest(**request))
    except LmtasksError as error:
        return str(error)
    return [[one.id, dict(one.inputs), list(one.references), dict(one.meta)] for one in dataset.examples]

print(json.dumps({label: read(**request) for label, request in json.loads(sys.argv[1]).items()}))
"""


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    home = tmp_path_factory.mktemp("hub")
    for name in ("typed", "json", "damaged", "twice", "mixed"):
        (home / name).mkdir()
    small = pyarrow.float32()
    table = pyarrow.table(
        {
            "id": [101.0, math.nan, 103.0],
            "document": pyarrow.array([3.14, 2.0, 1.5], small),
            "subject": pyarrow.array([1.5, math.nan, math.inf], small),
            "summary": pyarrow.array([[3.14, None], [1931.0], [math.nan]], pyarrow.list_(small)),
            "far": pyarrow.array([2**62, 0, 0], pyarrow.timestamp("us", "Europe/Berlin")),
            "topic": ["a", None, "c"],
        }
    )
    parquet.write_table(table, home / "typed" / "test.parquet")
    rows = [{"id": "a", "document": "one", "score": 1.0, "n": math.nan}, {"id": "b", "document": math.nan}]
    write(home / "json" / "test.jsonl", [*rows, {"id": "c", "document": "three", "score": 2.5}])
    (home / "damaged" / "test.parquet").write_bytes(b"PAR1 and no more")
    twice = pyarrow.table([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["document", "document"])
    parquet.write_table(twice, home / "twice" / "test.parquet")
    write(home / "mixed" / "test.jsonl", [{"document": "a", "o": {"x": 1}}, {"document": "b", "o": ["y"]}])
    requests = {name: {"data": f"hub:{home / name}"} for name in ("typed", "json", "damaged", "twice", "mixed")}
    requests |= {
        "far": {"data": f"hub:{home / 'typed'}", "columns": {"document": "far"}},
        "nowhere": {"data": f"hub:{home / 'nowhere'}"},
        "unknown user": {"data": "hub:~nosuchuser/set"},
        "long": {"data": "hub:" + "x" * 300},
        "nul": {"data": "hub:a\0b"},
        "surrogate": {"data": "hub:a\ud800b"},
    }
    environment = os.environ | {"HF_HOME": str(home / "home"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(requests)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_hub_values_equal_those_of_a_file(read: dict[str, object]):
    assert read["typed"] == [
        ["101", {"document": "3.14", "subject": "1.5"}, ["3.14"], {"topic": "a"}],
        ["2", {"document": "2"}, ["1931"], {}],
        ["103", {"document": "1.5"}, [""], {"topic": "c"}],
    ]


def test_hub_row_without_an_input_is_skipped(read: dict[str, object]):
    assert read["json"] == [
        ["a", {"document": "one"}, [], {"score": "1"}],
        ["c", {"document": "three"}, [], {"score": "2.5"}],
    ]


def test_hub_timestamp_is_refused_as_an_input(read: dict[str, object]):
    assert 'typed split test, row 1: column "far" holds a value of type timestamp' in str(read["far"])


@pytest.mark.parametrize("label", ["damaged", "twice", "nowhere", "unknown user", "long", "nul", "surrogate"])
def test_hub_error_is_one_line(read: dict[str, object], label: str):
    message = read[label]
    assert isinstance(message, str), message
    assert message.startswith("hub:")
    assert "\n" not in message


def test_hub_values_of_changing_types_are_read(read: dict[str, object]):
    assert [row[:2] for row in read["mixed"]] == [["1", {"document": "a"}], ["2", {"document": "b"}]]
