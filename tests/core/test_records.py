"""Typed records: JSON Schemas describe what is written, and mirrors of dataclasses have their fields."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import lmtasks
from lmtasks import Example, LogLikelihood, Sample, Score, Task, TrainOptions
from lmtasks.cli.main import main
from lmtasks.models.info import ModelInfo
from lmtasks.records.adapter import AdapterRecord, ComparedScoreRecord, SettingsRecord
from lmtasks.records.model import check_adapter_config
from lmtasks.records.parts import ScoreRecord
from lmtasks.records.run import GenerationRecord, ModelRecord, ModelRunRecord, OutputsRunRecord
from lmtasks.records.sample import LogLikelihoodRecord, SampleRecord
from lmtasks.records.strict_json import RecordError
from lmtasks.runs.compare import ComparedScore
from lmtasks.task import SamplingParams
from lmtasks.testing import FakeModel


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> lmtasks.Run:
    examples = [Example(id=f"e{n}", inputs={"text": f"number {n}"}, references=(f"answer {n}",)) for n in range(6)]
    task = Task(
        name="echo",
        version=1,
        summary="Echo.",
        fields=("text",),
        prompts={"plain": "Say $text"},
        datasets={"demo": lambda split: iter(examples[:3] if split == "test" else examples[3:])},
        metrics=("exact_match", "chrf"),
    )
    folder = tmp_path_factory.mktemp("runs")
    return lmtasks.run(task, model=FakeModel(lambda prompt: "x"), output_dir=folder, num_fewshot=1)


def schema(kind: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    with pytest.raises(SystemExit) as ended:
        main(["schema", kind])
    assert ended.value.code == 0
    return json.loads(capsys.readouterr().out)


def check(value: Any, schema: dict[str, Any], definitions: dict[str, Any], path: str = "") -> None:
    """Check a value against the part of JSON Schema that pydantic writes for records."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].removeprefix("#/$defs/")]
    if "anyOf" in schema:
        failed = []
        for option in schema["anyOf"]:
            try:
                return check(value, option, definitions, path)
            except AssertionError as error:
                failed.append(str(error))
        raise AssertionError("; ".join(failed))
    types = {
        "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int,
        "number": (int, float),
    }  # fmt: skip
    if "type" in schema:
        assert isinstance(value, types[schema["type"]]), f"{path}: {value!r} is not {schema['type']}"
        assert isinstance(value, bool) is (schema["type"] == "boolean"), path
    if "enum" in schema:
        assert value in schema["enum"], f"{path}: {value!r}"
    if "const" in schema:
        assert value == schema["const"], f"{path}: {value!r}"
    assert value >= schema.get("minimum", value) if isinstance(value, (int, float)) else True, path
    if schema.get("type") == "object":
        known, other = schema.get("properties", {}), schema.get("additionalProperties", {})
        assert set(schema.get("required", ())) <= value.keys(), (path, set(schema["required"]) - value.keys())
        for name, part in value.items():
            assert name in known or other is not False, f"{path}.{name} is unknown"
            check(part, known.get(name, other if isinstance(other, dict) else {}), definitions, f"{path}.{name}")
    if schema.get("type") == "array":
        for index, item in enumerate(value):
            check(item, schema.get("items", {}), definitions, f"{path}[{index}]")


def test_schema_of_run_describes_run_json(run, capsys):
    written = json.loads((run.path / "run.json").read_text())
    shape = schema("run", capsys)
    check(written, shape, shape["$defs"])
    del written["task"]["version"]
    with pytest.raises(AssertionError, match="version"):
        check(written, shape, shape["$defs"])


def test_schema_of_run_describes_outputs_made_elsewhere(run, capsys, tmp_path):
    (tmp_path / "data.jsonl").write_text('{"text": "a", "references": ["b"]}\n')
    (tmp_path / "outputs.txt").write_text("b\n")
    scored = lmtasks.score(
        "summarization/headline",
        data=tmp_path / "data.jsonl",
        predictions=tmp_path / "outputs.txt",
        output_dir=tmp_path,
    )
    shape = schema("run", capsys)
    check(json.loads((scored.path / "run.json").read_text()), shape, shape["$defs"])
    assert isinstance(lmtasks.load_run(scored.path).record, OutputsRunRecord)


def test_schema_of_sample_describes_every_line(run, capsys):
    shape = schema("sample", capsys)
    lines = (run.path / "samples.jsonl").read_text().splitlines()
    assert len(lines) == 3
    for line in lines:
        check(json.loads(line), shape, shape.get("$defs", {}))
        assert json.loads(line).keys() == shape["properties"].keys()


def test_schema_of_adapter_has_all_parts_of_lmtasks_json(capsys):
    shape = schema("adapter", capsys)
    assert shape["additionalProperties"] is False
    assert "schema" in shape["properties"]
    assert {"task", "prompt", "base", "weights_sha256", "training", "settings"} <= set(shape["required"])


def test_schema_of_task_names_its_keys(capsys):
    assert {"name", "version", "prompts"} <= set(schema("task", capsys)["required"])


@pytest.mark.parametrize(
    ("record", "shape", "added"),
    [
        (SampleRecord, Sample, set()),
        (LogLikelihoodRecord, LogLikelihood, set()),
        (ScoreRecord, Score, set()),
        (GenerationRecord, SamplingParams, set()),
        (ModelRecord, ModelInfo, set()),
        (ComparedScoreRecord, ComparedScore, {"outcome"}),
        (SettingsRecord, TrainOptions, set()),
    ],
)
def test_record_has_the_fields_of_its_dataclass(record, shape, added):
    left_out = {"output_dir"} if shape is TrainOptions else set()
    assert set(record.model_fields) == {field.name for field in fields(shape)} - left_out | added


@pytest.mark.parametrize("record", [ModelRunRecord, OutputsRunRecord, AdapterRecord, SampleRecord])
def test_record_is_strict_closed_and_frozen(record):
    config = record.model_config
    assert (config["strict"], config["extra"], config["frozen"]) == (True, "forbid", True)


def test_field_of_several_types_that_is_missing_is_said_to_be_missing():
    with pytest.raises(RecordError, match="^target_modules: missing$"):
        check_adapter_config({"peft_type": "LORA"})


def test_record_read_from_its_text_is_equal(run):
    assert lmtasks.Run(run.path).record == lmtasks.load_run(run.path).record
    text = (run.path / "run.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(run.record.to_json()))


def test_integers_stay_integers_and_numbers_become_floats(run):
    assert isinstance(run.record.counts.examples, int)
    assert isinstance(run.record.generation.temperature, float)


@pytest.mark.parametrize(
    "arguments", ["--help", "list", "run --help", "score --help", "compare --help", "schema --help"]
)
def test_start_of_the_command_line_imports_no_pydantic(arguments):
    code = (
        "import sys; from lmtasks.cli.main import main\n"
        f"try: main({arguments.split()!r})\nexcept SystemExit: pass\n"
        "assert not {'pydantic', 'lmtasks.records.run'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr
