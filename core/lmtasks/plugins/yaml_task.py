"""A task read from a YAML file: data only, checked key by key; errors name the line."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lmtasks.errors import PathError, PluginError, unknown_name
from lmtasks.hookspecs import hookimpl
from lmtasks.metrics import BUILTIN_METRICS, metrics_in_file
from lmtasks.metrics.evaluate_bridge import PREFIX
from lmtasks.parsers import PARSERS
from lmtasks.paths import user_path
from lmtasks.plugins.yaml_document import YamlDocument
from lmtasks.plugins.yaml_schema import DatasetKeys, TaskKeys, keys_of
from lmtasks.task import DataFile, DataSource, Field, Generate, HubDataset, Parameter, Prompt, Task

Part = TypeVar("Part")
OTHER_COLUMNS = ("references", "id", "language")
"""Names that a data set's `columns` may have beside those of fields."""
PLAIN_WORDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "list": "a list",
    "dictionary": "keys with values",
}
"""Types in pydantic's messages, in plain English."""
EXPECTED_BY_ERROR = {
    "model_type": "keys with values",
    "invalid_key": "text as a key",
    "string_pattern_mismatch": 'a name in lower case, such as "titles" or "titles/short"',
}
"""The expected value, by the type of pydantic's error."""
TYPES = {"str": str, "int": int, "float": float, "bool": bool, None: None}


class YamlPlugin:
    """The hooks of a YAML file."""

    def __init__(self, task: Task) -> None:
        """Make a plugin of one task."""
        self._task = task

    @hookimpl
    def register_tasks(self) -> list[Task]:
        """Return the task."""
        return [self._task]


def read_task(path: Path, content: bytes) -> YamlPlugin:
    """Return the task that a YAML file describes, as a plugin.

    Raises:
        PluginError: the file is not YAML, or a key or value is wrong; names file and line, what was expected and the
            nearest name that exists.
    """
    return YamlPlugin(_TaskBuilder(YamlDocument(path, content)).task())


class _TaskBuilder:
    """Makes the task of one file."""

    def __init__(self, document: YamlDocument) -> None:
        self.document = document
        try:
            self.keys = TaskKeys.model_validate(document.values)
        except ValidationError as error:
            raise self._validation_error(error) from error

    def task(self) -> Task:
        keys = self.keys
        fields = self._fields()
        self._check_columns(fields)
        for index, metric in enumerate(keys.metrics):
            if "/" not in metric and not metric.startswith(PREFIX) and metric not in BUILTIN_METRICS:
                raise self._unknown(("metrics", index), "metric", metric, BUILTIN_METRICS)
        if keys.output.parse not in PARSERS:
            raise self._unknown(("output", "parse"), "parser", keys.output.parse, PARSERS)
        values = {name: getattr(keys, name) for name in TaskKeys.model_fields}
        adapter = self.document.path.parent / keys.adapter if keys.adapter else None
        values |= {
            "fields": fields,
            "prompts": {name: self._part(("prompts", name), Prompt, part) for name, part in keys.prompts.items()},
            "datasets": {name: self._source(name, part) for name, part in keys.datasets.items()},
            "metrics": metrics_in_file(keys.metrics, self._metric_location),
            "output": self._part(("output",), Generate, keys.output, parse=PARSERS[keys.output.parse]),
            "adapter": adapter if adapter and adapter.is_dir() else keys.adapter,
            "parameters": {
                name: self._part(("parameters", name), Parameter, part, type=TYPES[part.type])
                for name, part in keys.parameters.items()
            },
        }
        try:
            return Task(**values)
        except ValueError as error:
            raise PluginError(f"{self.document.path}: {error}") from error

    def _fields(self) -> dict[str, Field]:
        """Return the fields that the file has, or those that its prompts name if it has none."""
        prompt_by_variable = self._prompt_variables()
        if not self.keys.fields:
            if not prompt_by_variable:
                raise self.document.error(("prompts",), 'no prompt names an input, such as "$text"')
            return {name: Field() for name in prompt_by_variable}
        for name, prompt_name in prompt_by_variable.items():
            if name not in self.keys.fields:
                known = (*self.keys.fields, *self.keys.parameters)
                raise self._unknown(("prompts", prompt_name), f'field that prompt "{prompt_name}" names', name, known)
        return {name: self._part(("fields", name), Field, part) for name, part in self.keys.fields.items()}

    def _prompt_variables(self) -> dict[str, str]:
        """Return the names in templates that are no parameters, each with the first prompt that has it."""
        prompt_by_variable: dict[str, str] = {}
        for prompt_name, prompt in self.keys.prompts.items():
            for part in ("system", "user"):
                template = Template(getattr(prompt, part))
                if not template.is_valid():
                    problem = 'a "$" that names no field; write "$$" for the sign itself'
                    raise self.document.error(("prompts", prompt_name, part), problem)
                for name in template.get_identifiers():
                    if name not in self.keys.parameters:
                        prompt_by_variable.setdefault(name, prompt_name)
        return prompt_by_variable

    def _check_columns(self, fields: Mapping[str, Field]) -> None:
        known = (*fields, *OTHER_COLUMNS)
        for name, dataset in self.keys.datasets.items():
            for key in dataset.columns:
                if key not in known:
                    raise self._unknown(("datasets", name, "columns", key), "field of the task", key, known)

    def _part(self, location: Sequence[str], part: Callable[..., Part], keys: BaseModel, **converted: object) -> Part:
        """Make a part of the task from its keys.

        Raises:
            PluginError: the part refuses a value; names the line.
        """
        try:
            return part(**{**keys.model_dump(), **converted})
        except ValueError as error:
            raise self.document.error(location, f"{'.'.join(location)}: {error}") from error

    def _source(self, name: str, keys: DatasetKeys) -> DataSource:
        if (keys.path is None) == (keys.hub is None):
            raise self.document.error(("datasets", name), "expected either path (a file) or hub (the id of a hub set)")
        if keys.hub is not None:
            return HubDataset(id=keys.hub, **keys.model_dump(exclude={"path", "hub"}))
        for key in ("revision", "config"):
            if getattr(keys, key) is not None:
                raise self.document.error(("datasets", name, key), f"{key} belongs to a hub set, and this is a file")
        try:
            path = self.document.path.parent / user_path(str(keys.path), "data file")
        except PathError as error:
            raise self.document.error(("datasets", name, "path"), str(error)) from error
        return DataFile(path=path, **keys.model_dump(include={"columns", "license", "language"}))

    def _metric_location(self, index: int) -> str:
        return f"{self.document.path}, line {self.document.line(('metrics', index))}"

    def _unknown(self, location: Sequence[str | int], kind: str, name: str, known: Iterable[str]) -> PluginError:
        return self.document.error(location, str(unknown_name(kind, name, known)))

    def _validation_error(self, error: ValidationError) -> PluginError:
        """Return the first problem of the file as an error of one line."""
        # Unknown keys come first: a misspelt key is why another one is missing.
        details = min(
            error.errors(), key=lambda detail: (detail["type"] != "extra_forbidden", self.document.line(detail["loc"]))
        )
        location: Sequence[Any] = details["loc"]
        name = ".".join(map(str, location))
        if details["type"] == "extra_forbidden":
            *parents, key = location
            kind = f"key of {'.'.join(map(str, parents))}" if parents else "key"
            return self._unknown(location, kind, str(key), keys_of(parents))
        if details["type"] == "missing":
            return self.document.error(location, f'"{name}" is missing')
        expected = details["msg"].removeprefix("Input should be ").removeprefix("a valid ")
        expected = EXPECTED_BY_ERROR.get(details["type"]) or PLAIN_WORDS.get(expected, expected)
        value = details["input"]
        quotes = "; put it in quotes" if "text" in expected and isinstance(value, (bool, int, float)) else ""
        return self.document.error(location, f"{name}: expected {expected}, got {reprlib.repr(value)}{quotes}")
