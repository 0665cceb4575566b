"""The keys of a task in a YAML file, and what they hold: what its JSON Schema is made of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lmtasks.parsers import PARSERS
from lmtasks.task import TASK_NAME


def _listed(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


Names = Annotated[list[str], BeforeValidator(_listed, json_schema_input_type=str | list[str])]


MetricName = Annotated[str, Field(json_schema_extra={"not": {"pattern": "^evaluate:"}})]
Metrics = Annotated[list[MetricName], BeforeValidator(_listed, json_schema_input_type=MetricName | list[MetricName])]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class FieldPart(_Part):
    """An input of the task."""

    columns: list[str] = []
    """Further column names that data knows it by, best first; "a.b" reaches into nested columns."""
    required: bool = True
    cut: bool = False
    """May lose its end when the prompt is too long for the model."""


class PromptPart(_Part):
    """How an example is put to a model; "$name" stands for a field or parameter, "$$" for the sign itself."""

    user: str
    system: str = ""
    answer_prefix: str = ""
    """What the answer follows when a base model is asked, such as "Title:"."""
    example_separator: str = "\n\n"
    """What stands between examples for a base model, and ends an answer there."""


class DataPart(_Part):
    """A data set: a file, or a set of the Hugging Face hub."""

    path: str | None = None
    """A JSONL, CSV, TSV or Parquet file, beside this one or by its whole path."""
    hub: str | None = None
    """The id of a hub set that holds plain files."""
    revision: str | None = None
    """Of the hub set: a commit."""
    config: str | None = None
    """Of the hub set."""
    columns: dict[str, str] = {}
    """Field (or references, id, language) to column, where the data uses other names."""
    license: str | None = None
    """Under which terms the data may be used, best as an SPDX identifier."""
    language: str | None = None
    """Of the references, a BCP 47 tag, where neither rows nor flags say."""


class GenerationPart(_Part):
    """How completions are drawn."""

    max_new_tokens: int = 128
    stop: Names = []
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0


class ParameterPart(_Part):
    """A setting that `--set NAME=VALUE` changes."""

    summary: str = ""
    value: str | int | float | bool | None = None
    """What it is unless it is set."""
    type: Literal["str", "int", "float", "bool"] | None = None
    """That its values have; without it, that of `value`, or text."""
    choices: list[str] = []
    minimum: float | None = None
    maximum: float | None = None


def _short(key: str) -> Any:
    """Take plain text for a part of which only one key is given."""
    return lambda given: {key: given} if isinstance(given, str) else given


def _named(given: Any) -> Any:
    return {name: {} for name in given} if isinstance(given, list) and all(isinstance(n, str) for n in given) else given


Fields = Annotated[
    dict[str, FieldPart], BeforeValidator(_named, json_schema_input_type=list[str] | dict[str, FieldPart])
]
PromptOrText = Annotated[PromptPart, BeforeValidator(_short("user"), json_schema_input_type=str | PromptPart)]
DataOrPath = Annotated[DataPart, BeforeValidator(_short("path"), json_schema_input_type=str | DataPart)]
ParameterOrValue = Annotated[
    ParameterPart,
    BeforeValidator(
        lambda given: given if isinstance(given, dict) else {"value": given},
        json_schema_input_type=str | int | float | bool | ParameterPart,
    ),
]


class TaskFile(_Part):
    """A task of lmtasks."""

    name: Annotated[str, Field(pattern=f"^{TASK_NAME.pattern}$")]
    """Such as "titles" or "titles/short", in lower case."""
    version: Annotated[int, Field(ge=1)]
    """Raise it whenever prompt, data or parsing changes: scores stop being comparable."""
    summary: str
    """One line, for `lmtasks list`."""
    fields: Fields = {}
    """The inputs; without it, what the prompts name."""
    references: Names = []
    """Column names that right answers are known by; "references", "reference" and "target" always are."""
    prompts: Annotated[dict[str, PromptOrText], Field(min_length=1)]
    """Ways to ask, by name; the first is the default."""
    datasets: Annotated[dict[str, DataOrPath], Field(min_length=1)]
    """Where examples come from, by name; the first is the demo."""
    metrics: Metrics
    """Such as rouge, bleu, chrf, exact_match, f1, PLUGIN/METRIC; modules of evaluate go with `--metrics` alone."""
    parse: str = Field("strip", json_schema_extra={"enum": list(PARSERS)})
    """From what the model wrote to the prediction."""
    generation: GenerationPart = GenerationPart()
    language: str | None = None
    """Of the references, a BCP 47 tag."""
    no_answer: str | None = None
    """What the model should write where the data has no right answer; it is read as an empty one."""
    require_columns: dict[str, str] = {}
    """Columns that must hold this value where the data has them."""
    adapter: str | None = None
    """A LoRA adapter for this task: a folder beside this file, or a hub id."""
    parameters: dict[str, ParameterOrValue] = {}
    """Settings that prompts name like fields."""


def task_schema() -> dict[str, Any]:
    """Return the JSON Schema of a YAML task, for editors."""
    schema = TaskFile.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "lmtasks task"}
