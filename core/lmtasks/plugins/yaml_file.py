"""A task in a YAML file: data alone, checked key by key, with the line of whatever is wrong."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lmtasks import task as words
from lmtasks.errors import PluginError, unknown_name
from lmtasks.hookspecs import hookimpl
from lmtasks.metrics import CORE
from lmtasks.metrics.bridge import PREFIX
from lmtasks.parsers import PARSERS

Made = TypeVar("Made")
OTHER_COLUMNS = ("references", "id", "language")
"""What a data set's `columns` may name beside fields."""

PLAIN_WORDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "list": "a list",
    "dictionary": "keys with values",
}
"""What pydantic expects, as people say it."""
KINDS = {
    "model_type": "keys with values",
    "invalid_key": "text as a key",
    "string_pattern_mismatch": 'a name in lower case, such as "titles" or "titles/short"',
}
"""The same by the kind of its error."""
MOST_VALUES = 10_000
"""Of a file: more only aliases of aliases can make."""
TYPES = {"str": str, "int": int, "float": float, "bool": bool, None: None}


def _listed(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


Names = Annotated[list[str], BeforeValidator(_listed, json_schema_input_type=str | list[str])]


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
    cue: str = ""
    """What the answer follows when a base model is asked, such as "Title:"."""
    separator: str = "\n\n"
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
    least: float | None = None
    most: float | None = None


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

    name: Annotated[str, Field(pattern=f"^{words.TASK_NAME.pattern}$")]
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
    metrics: Names
    """Such as rouge, bleu, chrf, exact_match, f1, PLUGIN/METRIC or evaluate:MODULE."""
    parse: str = Field("strip", json_schema_extra={"enum": list(PARSERS)})
    """From what the model wrote to the prediction."""
    generation: GenerationPart = GenerationPart()
    language: str | None = None
    """Of the references, a BCP 47 tag."""
    no_answer: str | None = None
    """What the model should write where the data has no right answer; it is read as an empty one."""
    expects: dict[str, str] = {}
    """Columns that must hold this value where the data has them."""
    adapter: str | None = None
    """A LoRA adapter for this task: a folder beside this file, or a hub id."""
    parameters: dict[str, ParameterOrValue] = {}
    """Settings that prompts name like fields."""


class YamlPlugin:
    """What a YAML file offers, as a plugin offers it."""

    def __init__(self, task: words.Task) -> None:
        """Take the one task."""
        self._task = task

    @hookimpl
    def register_tasks(self) -> list[words.Task]:
        """Return the one task."""
        return [self._task]


def task_schema() -> dict[str, Any]:
    """Return the JSON Schema of a YAML task, for editors."""
    schema = TaskFile.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "lmtasks task"}


def read_task(path: Path, content: bytes) -> YamlPlugin:
    """Read a task from a YAML file's content.

    Raises:
        PluginError: the file is no YAML, or a key or value is not what it should be; names file and line, what was
            expected and the nearest right name.
    """
    return YamlPlugin(_Reader(path, content).task())


class _Reader:
    """One file, with the lines that its keys stand in."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path = path
        try:
            loader = yaml.SafeLoader(self._decoded(content))
            node = loader.get_single_node()
            if not isinstance(node, yaml.MappingNode):
                raise PluginError(f'{path}: expected a task, lines such as "name: titles"')
            self._look_through(node)
            self.root: yaml.Node = node
            self.values: dict[str, Any] = loader.construct_document(node)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f", line {mark.line + 1}" if mark else ""
            raise PluginError(f"{path}{line}: not YAML: {error.problem or error.context}") from error
        except yaml.YAMLError as error:
            raise PluginError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
        except RecursionError as error:
            raise PluginError(f"{path}: nested too deeply for a task") from error
        except ValueError as error:  # a number or date that is none
            raise PluginError(f"{path}: not YAML: {error}; put text in quotes") from error

    def task(self) -> words.Task:
        try:
            found = TaskFile.model_validate(self.values)
        except ValidationError as error:
            raise self._explained(error) from error
        fields = self._fields(found)
        for name, source in found.datasets.items():
            for key in source.columns:
                if key not in (*fields, *OTHER_COLUMNS):
                    known = (*fields, *OTHER_COLUMNS)
                    raise self._unknown(("datasets", name, "columns", key), "field of the task", key, known)
        for place, metric in enumerate(found.metrics):
            if "/" not in metric and not metric.startswith(PREFIX) and metric not in CORE:
                raise self._unknown(("metrics", place), "metric", metric, CORE)
        if found.parse not in PARSERS:
            raise self._unknown(("parse",), "parser", found.parse, PARSERS)
        try:
            return self._made(found, fields)
        except ValueError as error:
            raise PluginError(f"{self.path}: {error}") from error

    def _fields(self, found: TaskFile) -> dict[str, words.Field]:
        """Return the fields that are stated, or else those that the prompts name."""
        named: dict[str, str] = {}
        for prompt_name, prompt in found.prompts.items():
            for part in ("system", "user"):
                template = Template(getattr(prompt, part))
                if not template.is_valid():
                    raise self._error(
                        ("prompts", prompt_name, part), 'a "$" that names no field; write "$$" for the sign itself'
                    )
                for name in template.get_identifiers():
                    if name not in found.parameters:
                        named.setdefault(name, prompt_name)
        if not found.fields:
            if not named:
                raise self._error(("prompts",), 'no prompt names an input, such as "$text"')
            return {name: words.Field() for name in named}
        for name, prompt_name in named.items():
            if name not in found.fields:
                known = (*found.fields, *found.parameters)
                raise self._unknown(("prompts", prompt_name), f'field that prompt "{prompt_name}" names', name, known)
        return {
            name: words.Field(columns=tuple(part.columns), required=part.required, cut=part.cut)
            for name, part in found.fields.items()
        }

    def _made(self, found: TaskFile, fields: Mapping[str, words.Field]) -> words.Task:
        parse = PARSERS[found.parse]
        if found.no_answer is not None:
            read, nothing = parse, found.no_answer.casefold()

            def parse(completion: str) -> str:
                prediction = read(completion)
                return "" if prediction.casefold().rstrip(".。!") == nothing else prediction

        beside = self.path.parent / found.adapter if found.adapter else None
        generation = {**found.generation.model_dump(), "stop": tuple(found.generation.stop)}
        return words.Task(
            name=found.name,
            version=found.version,
            summary=found.summary,
            fields=fields,
            references=found.references,
            prompts={
                name: self._built(("prompts", name), words.Prompt, part.model_dump())
                for name, part in found.prompts.items()
            },
            datasets={name: self._source(name, part) for name, part in found.datasets.items()},
            metrics=found.metrics,
            parse=parse,
            generation=self._built(("generation",), words.Generation, generation),
            language=found.language,
            no_answer=found.no_answer,
            expects=found.expects,
            adapter=beside if beside and beside.is_dir() else found.adapter,
            parameters={
                name: self._built(
                    ("parameters", name), words.Parameter, {**part.model_dump(), "type": TYPES[part.type]}
                )
                for name, part in found.parameters.items()
            },
        )

    def _built(self, place: Sequence[str], kind: Callable[..., Made], values: Mapping[str, object]) -> Made:
        """Make a part of the task; what it refuses is told with its line."""
        try:
            return kind(**values)
        except ValueError as error:
            raise self._error(place, f"{'.'.join(place)}: {error}") from error

    def _source(self, name: str, part: DataPart) -> words.DataSource:
        if (part.path is None) == (part.hub is None):
            raise self._error(("datasets", name), "expected either path (a file) or hub (the id of a hub set)")
        if part.hub is not None:
            return words.HubDataset(
                id=part.hub,
                revision=part.revision,
                config=part.config,
                columns=part.columns,
                license=part.license,
                language=part.language,
            )
        for key in ("revision", "config"):
            if getattr(part, key) is not None:
                raise self._error(("datasets", name, key), f"{key} belongs to a hub set, and this is a file")
        path = self.path.parent / Path(str(part.path)).expanduser()
        return words.DataFile(path=path, columns=part.columns, license=part.license, language=part.language)

    def _decoded(self, content: bytes) -> str:
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            raise PluginError(f"{self.path}, line {line}: not UTF-8; save the file as UTF-8") from error

    def _look_through(self, node: yaml.Node, sizes: dict[int, int] | None = None) -> int:
        """Refuse keys that stand twice, of which YAML would take the last, and aliases that grow without bound.

        Returns:
            How many values the node stands for.
        """
        sizes = {} if sizes is None else sizes
        if id(node) in sizes:  # an alias of what was looked through, or of what it stands in
            return sizes[id(node)]
        sizes[id(node)] = MOST_VALUES + 1
        size, seen = 1, set()
        if isinstance(node, yaml.SequenceNode):
            size += sum(self._look_through(item, sizes) for item in node.value)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode):
                    raise PluginError(f"{self.path}, line {line}: a key must be plain text")
                if key.value in seen:
                    raise PluginError(f'{self.path}, line {line}: "{key.value}" stands here twice')
                seen.add(key.value)
                size += self._look_through(value, sizes)
        if size > MOST_VALUES:
            line = node.start_mark.line + 1
            raise PluginError(f"{self.path}, line {line}: stands for more than {MOST_VALUES:,} values, by its aliases")
        sizes[id(node)] = size
        return size

    def _line(self, place: Iterable[str | int]) -> int:
        """Return the line of a key, or of the nearest thing above it that is there."""
        node, line = self.root, self.root.start_mark.line
        for step in place:
            found = None
            if isinstance(node, yaml.MappingNode):
                found = next((pair for pair in node.value if pair[0].value == str(step)), None)
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                found = (node.value[step], node.value[step])
            if found is None:
                break
            line, node = found[0].start_mark.line, found[1]
        return int(line) + 1

    def _error(self, place: Sequence[str | int], complaint: str) -> PluginError:
        return PluginError(f"{self.path}, line {self._line(place)}: {complaint}")

    def _unknown(self, place: Sequence[str | int], kind: str, name: str, known: Iterable[str]) -> PluginError:
        return self._error(place, str(unknown_name(kind, name, known)))

    def _explained(self, error: ValidationError) -> PluginError:
        """Return the first thing that is wrong in the file, in one line."""
        # An unknown key first: it is why another is missing.
        details = min(error.errors(), key=lambda one: (one["type"] != "extra_forbidden", self._line(one["loc"])))
        place: Sequence[Any] = details["loc"]
        name = ".".join(map(str, place))
        if details["type"] == "extra_forbidden":
            *above, key = place
            kind = f"key of {'.'.join(map(str, above))}" if above else "key"
            return self._unknown(place, kind, str(key), self._keys(above))
        if details["type"] == "missing":
            return self._error(place, f'"{name}" is missing')
        expected = details["msg"].removeprefix("Input should be ").removeprefix("a valid ")
        expected = KINDS.get(details["type"]) or PLAIN_WORDS.get(expected, expected)
        given = details["input"]
        quotes = "; put it in quotes" if "text" in expected and isinstance(given, (bool, int, float)) else ""
        return self._error(place, f"{name}: expected {expected}, got {reprlib.repr(given)}{quotes}")

    def _keys(self, place: Sequence[Any]) -> list[str]:
        """Return the keys that a part of the file may have."""
        parts: dict[str, type[BaseModel]] = {
            "generation": GenerationPart,
            "fields": FieldPart,
            "prompts": PromptPart,
            "datasets": DataPart,
            "parameters": ParameterPart,
        }
        return list((parts[place[0]] if place else TaskFile).model_fields)
