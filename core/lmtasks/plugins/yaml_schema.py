"""The keys of a task in a YAML file and their values; the JSON Schema is made from these models.

Each model has the fields of the class in `lmtasks.task` that it stands for (a test compares them), with the types that
YAML has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lmtasks.parsers import PARSERS
from lmtasks.task import TASK_NAME


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=str | list[str])]


MetricName = Annotated[str, Field(json_schema_extra={"not": {"pattern": "^evaluate:"}})]
Metrics = Annotated[list[MetricName], BeforeValidator(_as_list, json_schema_input_type=MetricName | list[MetricName])]


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class FieldKeys(_Keys):
    """An input of the task."""

    columns: list[str] = []
    """Further names of its column in data, best first; "a.b" reaches into nested columns."""
    required: bool = True
    truncatable: bool = False
    """Whether its end may be removed when the prompt is too long for the model."""


class PromptKeys(_Keys):
    """How an example becomes a prompt; "$name" stands for a field or parameter, "$$" for the sign itself."""

    user: str
    system: str = ""
    answer_prefix: str = ""
    """Text before the answer when a base model is prompted, such as "Title:"."""
    example_separator: str = "\n\n"
    """Text between examples for a base model; it is also the stop string there."""


class DatasetKeys(_Keys):
    """A data set: a file, or a set of the Hugging Face hub."""

    path: str | None = None
    """A JSONL, CSV, TSV or Parquet file, relative to this one or absolute."""
    hub: str | None = None
    """The id of a hub set that holds plain files."""
    revision: str | None = None
    """A commit of the hub set."""
    config: str | None = None
    """A configuration of the hub set."""
    columns: dict[str, str] = {}
    """Field (or references, id, language) to column, for columns that the task does not know."""
    license: str | None = None
    """License of the data, best as an SPDX identifier."""
    language: str | None = None
    """Language of the references as a BCP 47 tag, if neither rows nor options state one."""


class OutputKeys(_Keys):
    """How the model writes its answer, and how it is read."""

    max_new_tokens: int = 128
    stop: Names = []
    """Strings that end a completion; its text ends before them."""
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0: all tokens."""
    repetition_penalty: float = 1.0
    parse: Annotated[str, Field(json_schema_extra={"enum": list(PARSERS)})] = "strip"
    """The parser that makes the prediction from the completion."""
    no_answer: str | None = None
    """What the model should write where the data has no right answer; the prediction is then empty."""


class ParameterKeys(_Keys):
    """A setting that `--set NAME=VALUE` changes."""

    summary: str = ""
    default: str | int | float | bool | None = None
    """The value unless the parameter is set."""
    type: Literal["str", "int", "float", "bool"] | None = None
    """Type of its values; without it, that of the default, or text."""
    choices: list[str] = []
    """The texts that are allowed; empty: any."""
    minimum: float | None = None
    maximum: float | None = None


def _from_text(key: str) -> Any:
    """Return a converter that makes keys of plain text, which stands for the value of one key."""
    return lambda value: {key: value} if isinstance(value, str) else value


def _from_names(value: Any) -> Any:
    """Return keys for a list of names."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return {name: {} for name in value}
    return value


Fields = Annotated[
    dict[str, FieldKeys], BeforeValidator(_from_names, json_schema_input_type=list[str] | dict[str, FieldKeys])
]
PromptOrText = Annotated[PromptKeys, BeforeValidator(_from_text("user"), json_schema_input_type=str | PromptKeys)]
DatasetOrPath = Annotated[DatasetKeys, BeforeValidator(_from_text("path"), json_schema_input_type=str | DatasetKeys)]
ParameterOrValue = Annotated[
    ParameterKeys,
    BeforeValidator(
        lambda value: value if isinstance(value, dict) else {"default": value},
        json_schema_input_type=str | int | float | bool | ParameterKeys,
    ),
]


class TaskKeys(_Keys):
    """A task of lmtasks."""

    name: Annotated[str, Field(pattern=f"^{TASK_NAME.pattern}$")]
    """Such as "titles" or "titles/short", in lower case."""
    version: Annotated[int, Field(ge=1)]
    """Raise it whenever prompt, data or parsing changes: scores of other versions are not comparable."""
    summary: str
    """One line, for `lmtasks list`."""
    fields: Fields = {}
    """The inputs; without it, the names in the prompts."""
    references: Names = []
    """Names of the column with the right answers; "references", "reference" and "target" always work."""
    prompts: Annotated[dict[str, PromptOrText], Field(min_length=1)]
    """Prompts by name; the first is the default."""
    datasets: Annotated[dict[str, DatasetOrPath], Field(min_length=1)]
    """Data sets by name; the first is the demo."""
    metrics: Metrics
    """Such as rouge, bleu, chrf, exact_match, f1, PLUGIN/METRIC; modules of evaluate work with `--metrics` only."""
    output: OutputKeys = OutputKeys()
    """How the model answers."""
    language: str | None = None
    """Language of the references as a BCP 47 tag."""
    require_columns: dict[str, str] = {}
    """Columns that must hold this value if the data has them."""
    adapter: str | None = None
    """A LoRA adapter for this task: a folder relative to this file, or a hub id."""
    parameters: dict[str, ParameterOrValue] = {}
    """Settings that users change; prompts name them like fields."""


PART_KEYS: dict[str, type[BaseModel]] = {
    "fields": FieldKeys,
    "prompts": PromptKeys,
    "datasets": DatasetKeys,
    "output": OutputKeys,
    "parameters": ParameterKeys,
}
"""The models of the parts of a task."""


def keys_of(location: Sequence[Any]) -> list[str]:
    """Return the keys that the part of a file at a location may have."""
    return list((PART_KEYS[location[0]] if location else TaskKeys).model_fields)


def task_schema() -> dict[str, Any]:
    """Return the JSON Schema of a YAML task, for editors."""
    schema = TaskKeys.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "lmtasks task"}
