"""A task read from a YAML file: data alone, checked key by key, with the line of whatever is wrong."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lmtasks import task as words
from lmtasks.errors import PathError, PluginError, unknown_name
from lmtasks.hookspecs import hookimpl
from lmtasks.metrics import CORE, metrics_in_file
from lmtasks.metrics.evaluate_bridge import PREFIX
from lmtasks.parsers import PARSERS
from lmtasks.paths import user_path
from lmtasks.plugins.yaml_schema import DataPart, FieldPart, GenerationPart, ParameterPart, PromptPart, TaskFile

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


class YamlPlugin:
    """What a YAML file offers, as a plugin offers it."""

    def __init__(self, task: words.Task) -> None:
        """Take the one task."""
        self._task = task

    @hookimpl
    def register_tasks(self) -> list[words.Task]:
        """Return the one task."""
        return [self._task]


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
            metrics=metrics_in_file(found.metrics, lambda place: f"{self.path}, line {self._line(('metrics', place))}"),
            parse=parse,
            generation=self._built(("generation",), words.Generation, generation),
            language=found.language,
            no_answer=found.no_answer,
            require_columns=found.require_columns,
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
        try:
            path = self.path.parent / user_path(str(part.path), "data file")
        except PathError as error:
            raise self._error(("datasets", name, "path"), str(error)) from error
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
