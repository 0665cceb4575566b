"""A task: inputs, prompts, data, output and metrics."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lmtasks.task.output import Generate, Output
from lmtasks.task.parameter import Parameter, Value
from lmtasks.task.prompt import Field, Prompt
from lmtasks.task.sample import Example
from lmtasks.task.score import Metric
from lmtasks.task.source import DataFile, DataFunction, DataSource, HubDataset
from lmtasks.task.validate import as_tuple, check_type

TASK_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Everything that lmtasks needs to run a task with a model. Making one opens and reads nothing.

    Short forms are accepted and converted: a list of names for `fields`, a string for a prompt, a function for a data
    set. `dataclasses.replace` makes a task that differs in some fields.
    """

    name: str
    """The plugin's entry point, or "<entry point>/<variant>": "translation/en-de"."""
    version: int
    """Raise it whenever prompt, data or parsing changes: scores of other versions are not comparable."""
    summary: str
    """One line, for `lmtasks list`."""
    fields: Mapping[str, Field]
    """The inputs, by name."""
    prompts: Mapping[str, Prompt]
    """Prompts by name; the first is the default."""
    datasets: Mapping[str, DataSource]
    """Data sets by name; the first is the demo."""
    metrics: tuple[str | Metric, ...]
    """Names ("rouge", "<plugin>/<metric>") or metrics."""
    references: tuple[str, ...] = ()
    """Names of the column with the right answers, best first; "references", "reference" and "target" always work."""
    output: Output = Generate()
    """How the model answers; options of a run may change its sampling."""
    language: str | None = None
    """Language of the references, if neither examples nor options state one; None: read from their script."""
    require_columns: Mapping[str, str] = field(default_factory=dict)
    """Columns that must hold this value if the data has them, such as {"target_lang": "zh"}."""
    adapter: str | Path | None = None
    """A LoRA adapter for this task, as a folder of the package or a hub id; used if the model is its base model."""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    """Parameters that users set with `--set`, by name; prompts name them like fields."""
    settings: Mapping[str, Value] = field(default_factory=dict)
    """Values of the parameters that were set, by name; see `with_settings`."""
    origin: str = field(default="", compare=False)
    """Distribution and version, or file, of the plugin; "" until a registry has loaded it."""

    if TYPE_CHECKING:

        def __init__(  # the generated one, with the short forms
            self,
            *,
            name: str,
            version: int,
            summary: str,
            fields: Mapping[str, Field] | Sequence[str],
            prompts: Mapping[str, str | Prompt],
            datasets: Mapping[str, DataSource | Callable[[str], Iterable[Example]]],
            metrics: Sequence[str | Metric],
            references: Sequence[str] = (),
            output: Output = ...,
            language: str | None = None,
            require_columns: Mapping[str, str] = ...,
            adapter: str | Path | None = None,
            parameters: Mapping[str, Parameter] = ...,
            settings: Mapping[str, Value] = ...,
            origin: str = "",
        ) -> None: ...

    def __post_init__(self) -> None:
        """Convert the short forms, and check the parts.

        Raises:
            ValueError: a part is missing, has the wrong type or contradicts another; the message names it.
        """
        converted = {
            "fields": (
                dict(self.fields) if isinstance(self.fields, Mapping) else dict.fromkeys(as_tuple(self.fields), Field())
            ),
            "prompts": {
                name: Prompt(user=prompt) if isinstance(prompt, str) else prompt
                for name, prompt in self.prompts.items()
            },
            "datasets": {
                name: DataFunction(read=source) if callable(source) else source
                for name, source in self.datasets.items()
            },
            "metrics": as_tuple(self.metrics),
            "references": as_tuple(self.references),
            "require_columns": dict(self.require_columns),
            "parameters": dict(self.parameters),
            "settings": dict(self.settings),
        }
        for name, value in converted.items():
            object.__setattr__(self, name, value)
        _check_types(self)
        _check_contents(self)

    def __hash__(self) -> int:
        """Return the hash of name and version, which equal tasks share."""
        return hash((self.name, self.version))

    @property
    def label(self) -> str:
        """Name and origin, for messages."""
        return f'task "{self.name}" ({self.origin})' if self.origin else f'task "{self.name}"'

    @property
    def parameter_values(self) -> dict[str, Value]:
        """Values of the parameters that were set or have a default, by name."""
        values = {name: self.settings.get(name, parameter.default) for name, parameter in self.parameters.items()}
        return {name: value for name, value in values.items() if value is not None}

    def with_settings(self, values: Mapping[str, object]) -> Task:
        """Return this task with parameters set, from text or from values of their type.

        Raises:
            KeyError: there is no such parameter; its argument is the name.
            ValueError: a parameter does not allow a value; names it and says what is expected.
        """
        settings = dict(self.settings)
        for name, value in values.items():
            try:
                settings[name] = self.parameters[name].read(value)
            except ValueError as error:
                raise ValueError(f'{self.label}: parameter "{name}" {error}, not {value!r}') from None
        return dataclasses.replace(self, settings=settings)

    def template_values(self, inputs: Mapping[str, str]) -> Mapping[str, str]:
        """Return the values of all names in templates: the inputs, and the values of parameters as text."""
        texts = {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in self.parameter_values.items()
        }
        return {**inputs, **texts}


FIELD_TYPES: Mapping[str, tuple[type, ...]] = {
    "version": (int,),
    "summary": (str,),
    "output": (Output,),
    "language": (str, type(None)),
    "adapter": (str, Path, type(None)),
    "origin": (str,),
}
"""The types of the fields of a task that hold one value, checked where the task is made and not during a run."""
ITEM_TYPES: Mapping[str, tuple[type, ...]] = {
    "fields": (Field,),
    "references": (str,),
    "prompts": (Prompt,),
    "datasets": (DataFile, HubDataset, DataFunction),
    "metrics": (str, Metric),
    "require_columns": (str,),
    "parameters": (Parameter,),
    "settings": (str, int, float, bool),
}
"""The types of the items of its other fields."""


def _check_types(task: Task) -> None:
    if not isinstance(task.name, str) or not TASK_NAME.fullmatch(task.name):
        raise ValueError(f'task name "{task.name}": expected the plugin\'s name, or "plugin/variant", in lower case')
    for part, types in FIELD_TYPES.items():
        check_type(f'task "{task.name}": {part}', getattr(task, part), types)
    for part, types in ITEM_TYPES.items():
        items = getattr(task, part)
        for key in items if isinstance(items, Mapping) else ():
            check_type(f'task "{task.name}": the name of one of its {part}', key, (str,))
        for item in items.values() if isinstance(items, Mapping) else items:
            check_type(f'task "{task.name}": one of its {part}', item, types)


def _check_contents(task: Task) -> None:
    for part in ("fields", "prompts", "datasets"):
        if not getattr(task, part):
            raise ValueError(f'task "{task.name}": {part} is empty, at least one is needed')
    for name, parameter in task.parameters.items():
        if name in task.fields and parameter.default is not None:
            raise ValueError(
                f'task "{task.name}": parameter "{name}" has the name of a field, and must not have a default: it'
                " replaces the field only if it is set"
            )
    for name in task.settings:
        if name not in task.parameters:
            raise ValueError(f'task "{task.name}": setting "{name}" is not among the parameters')
    known = (*task.fields, *task.parameters)
    for name, prompt in task.prompts.items():
        unknown = sorted(prompt.variables() - set(known))
        if unknown:
            raise ValueError(
                f'task "{task.name}": prompt "{name}" names ${unknown[0]}, which is not among the fields'
                f" ({', '.join(known)})"
            )
