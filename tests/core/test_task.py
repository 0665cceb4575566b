"""Task as a value: it can be replaced, compared, hashed, and its parts convert; how output is read."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace

import pytest
from pydantic import BaseModel

from lmtasks import DataFile, DataFunction, Example, Field, Generate, HubDataset, Metric, Parameter, Prompt, Task
from lmtasks.plugins.yaml_schema import DatasetKeys, FieldKeys, OutputKeys, ParameterKeys, PromptKeys, TaskKeys
from lmtasks.task import SamplingParams


def read(split: str) -> list[Example]:
    return [Example(id="a", inputs={"text": "hi"}, references=("ho",))]


def make_task(**changes: object) -> Task:
    parts: dict[str, object] = {
        "name": "echo",
        "version": 1,
        "summary": "Echo.",
        "fields": ["text"],
        "prompts": {"plain": "$text"},
        "datasets": {"demo": read},
        "metrics": "rouge",
        "parameters": {"tone": Parameter()},
    }
    return Task(**{**parts, **changes})


def test_task_converts_short_forms():
    task = make_task(references="reply")
    assert task.fields == {"text": Field()}
    assert task.prompts == {"plain": Prompt(user="$text")}
    assert task.datasets == {"demo": DataFunction(read=read)}
    assert (task.metrics, task.references) == (("rouge",), ("reply",))


OTHERS = {
    "name": "echo/other",
    "version": 2,
    "summary": "Other.",
    "fields": {"text": Field(required=False)},
    "prompts": {"other": "$text"},
    "datasets": {"other": DataFile(path="x.jsonl")},
    "metrics": ["bleu"],
    "references": ["other"],
    "output": Generate(max_new_tokens=3),
    "language": "de",
    "require_columns": {"lang": "de"},
    "adapter": "other",
    "parameters": {"tone": Parameter(choices="formal")},
    "settings": {"tone": "formal"},
    "origin": "other 1.0",
}


@pytest.mark.parametrize("field", [field.name for field in fields(Task)])
def test_replace_changes_any_field_of_a_task(field: str):
    task = make_task()
    other = replace(task, **{field: OTHERS[field]})
    assert getattr(other, field) != getattr(task, field)
    assert getattr(other, field) == getattr(make_task(**{field: OTHERS[field]}), field)
    for name in {field.name for field in fields(Task)} - {field}:
        assert getattr(other, name) == getattr(task, name)
    assert (other == task) is (field == "origin")


def test_equal_tasks_have_equal_hashes_and_cannot_be_changed():
    assert make_task() == make_task() and len({make_task(), make_task(), make_task(version=2)}) == 2
    with pytest.raises(FrozenInstanceError):
        make_task().version = 2


def test_replace_works_on_a_task_whose_parameter_replaces_a_field():
    task = make_task(parameters={"text": Parameter()}).with_settings({"text": "hello"})
    assert replace(task, version=2).template_values({"text": "hi"}) == {"text": "hello"}


def test_task_refuses_a_setting_without_parameter():
    with pytest.raises(ValueError, match='task "echo": setting "tune" is not among the parameters'):
        make_task(settings={"tune": "x"})


@pytest.mark.parametrize(
    ("text", "prediction"),
    [(" Unknown. ", ""), ("UNKNOWN", ""), ("unknown land", "unknown land"), ("yes", "yes")],
)
def test_generate_reads_no_answer_as_empty(text: str, prediction: str):
    assert Generate(no_answer="unknown").read(text) == prediction
    assert Generate().read(text) == text.strip()


def test_generate_has_the_sampling_params_of_its_fields():
    params = Generate(max_new_tokens=5, stop="x", temperature=0.5, top_k=3, parse=str.upper).sampling_params
    assert params == SamplingParams(max_new_tokens=5, stop=("x",), temperature=0.5, top_k=3)
    assert type(params) is SamplingParams


def test_generate_is_verbatim_only_with_the_default_parser():
    assert Generate().is_verbatim
    assert not Generate(parse=str.upper).is_verbatim and not Generate(no_answer="none").is_verbatim


def test_metric_has_defaults_for_all_but_name_and_measure():
    class Share(Metric):
        name = "share"

        def measure(self, samples, language): ...

    metric = Share()
    metric.check()
    metric.check_references(9)
    assert metric.label == 'metric "share"'


@pytest.mark.parametrize(
    ("model", "part", "yaml_only", "python_only"),
    [
        (TaskKeys, Task, set(), {"settings", "origin"}),
        (FieldKeys, Field, set(), set()),
        (PromptKeys, Prompt, set(), set()),
        (OutputKeys, Generate, set(), set()),
        (ParameterKeys, Parameter, set(), set()),
        (DatasetKeys, HubDataset, {"path", "hub"}, {"id"}),
    ],
)
def test_yaml_keys_are_the_fields_of_the_parts(
    model: type[BaseModel], part: type, yaml_only: set[str], python_only: set[str]
):
    assert set(model.model_fields) - yaml_only == {field.name for field in fields(part)} - python_only
