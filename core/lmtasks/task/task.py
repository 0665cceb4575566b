"""A task: prompt, data, metric and adapter."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lmtasks.task.parameter import Parameter, Value
from lmtasks.task.prompt import Field, Generation, Prompt
from lmtasks.task.sample import Example
from lmtasks.task.score import Metric
from lmtasks.task.source import DataFile, DataFunction, DataSource, HubDataset
from lmtasks.task.validate import as_tuple, check_type

TASK_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)?")


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class Task:
    """Prompt, data, metric: everything lmtasks needs to run a task with a model.

    The short forms are taken at the door: a list of names for `fields`, a plain string for a prompt, a bare function
    for a data set.
    """

    name: str
    version: int
    summary: str
    fields: Mapping[str, Field]
    references: tuple[str, ...]
    prompts: Mapping[str, Prompt]
    datasets: Mapping[str, DataSource]
    metrics: tuple[str | Metric, ...]
    parse: Callable[[str], str]
    generation: Generation
    language: str | None
    no_answer: str | None
    require_columns: Mapping[str, str]
    adapter: str | Path | None
    parameters: Mapping[str, Parameter]
    origin: str = field(compare=False)
    """Distribution and version, or file, that it comes from; "" before a plugin returned it."""

    def __init__(
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
        parse: Callable[[str], str] = str.strip,
        generation: Generation | None = None,
        language: str | None = None,
        no_answer: str | None = None,
        require_columns: Mapping[str, str] | None = None,
        adapter: str | Path | None = None,
        parameters: Mapping[str, Parameter] | None = None,
    ) -> None:
        """Describe a task. Cheap: nothing is opened or read.

        Args:
            name: the plugin's entry point, or "<entry point>/<variant>": "translation/en-de".
            version: raise it whenever prompt, data or parsing changes: scores stop being comparable.
            summary: one line, for `lmtasks list`.
            fields: the inputs, by name.
            prompts: ways to ask, by name; the first is the default.
            datasets: where examples come from, by name; the first is the demo.
            metrics: names ("rouge", "<plugin>/<metric>") or metrics.
            references: column names that right answers are known by, best first; "references", "reference" and
                "target" are always known.
            parse: from completion to prediction; total, never raises.
            generation: how completions are drawn, unless flags say otherwise.
            language: of the references, where neither examples nor flags say; None: read from their script.
            no_answer: what the model should write where the data has an empty list of references; None: such
                data is an error. `parse` must turn it into "".
            require_columns: columns that must hold this value where the data has them, such as {"target_lang": "zh"}.
            adapter: a LoRA adapter for this task, as a folder of the package or a hub id; it is used where the model
                is the one that it was trained on.
            parameters: settings that users may change with `--set`, by name; prompts name them like fields.

        Raises:
            ValueError: a part is missing or contradicts another; the message names it.
        """
        values = {
            "name": name,
            "version": version,
            "summary": summary,
            "fields": dict(fields) if isinstance(fields, Mapping) else {name: Field() for name in as_tuple(fields)},
            "references": as_tuple(references),
            "prompts": {
                key: Prompt(user=prompt) if isinstance(prompt, str) else prompt for key, prompt in prompts.items()
            },
            "datasets": {
                key: DataFunction(read=source) if callable(source) else source for key, source in datasets.items()
            },
            "metrics": as_tuple(metrics),
            "parse": parse,
            "generation": generation or Generation(),
            "language": language,
            "no_answer": no_answer,
            "require_columns": dict(require_columns or {}),
            "adapter": adapter,
            "parameters": dict(parameters or {}),
            "origin": "",
        }
        for attribute in dataclasses.fields(type(self)):
            object.__setattr__(self, attribute.name, values[attribute.name])
        self._check()

    def _check(self) -> None:
        if not isinstance(self.name, str) or not TASK_NAME.fullmatch(self.name):
            raise ValueError(
                f'task name "{self.name}": expected the plugin\'s name, or "plugin/variant", in lower case'
            )
        for part, kinds in PARTS.items():
            check_type(f'task "{self.name}": {part}', getattr(self, part), kinds)
        for part, kind in ITEMS.items():
            held = getattr(self, part)
            for key in held if isinstance(held, Mapping) else ():
                check_type(f'task "{self.name}": the name of one of its {part}', key, (str,))
            for item in held.values() if isinstance(held, Mapping) else held:
                check_type(f'task "{self.name}": one of its {part}', item, kind)
        for part in ("fields", "prompts", "datasets"):
            if not getattr(self, part):
                raise ValueError(f'task "{self.name}": {part} is empty, at least one is needed')
        for name, parameter in self.parameters.items():
            if name in self.fields and parameter.value is not None:
                raise ValueError(
                    f'task "{self.name}": parameter "{name}" has the name of a field, and must begin as None: it takes'
                    " the field's place only where it is set"
                )
        known = (*self.fields, *self.parameters)
        for name, prompt in self.prompts.items():
            unknown = sorted(prompt.names() - set(known))
            if unknown:
                raise ValueError(
                    f'task "{self.name}": prompt "{name}" names ${unknown[0]}, which is not among the fields'
                    f" ({', '.join(known)})"
                )

    @property
    def label(self) -> str:
        """Name and origin, for messages."""
        return f'task "{self.name}" ({self.origin})' if self.origin else f'task "{self.name}"'

    @property
    def settings(self) -> dict[str, Value]:
        """The parameters that have a value, by name."""
        return {name: found.value for name, found in self.parameters.items() if found.value is not None}

    def with_settings(self, given: Mapping[str, object]) -> Task:
        """Return this task with parameters set, from text or from values of their type.

        Raises:
            KeyError: there is no such parameter; its argument is the name.
            ValueError: a value is none that the parameter allows; names it and says what is expected.
        """
        parameters = dict(self.parameters)
        for name, value in given.items():
            try:
                parameters[name] = dataclasses.replace(parameters[name], value=parameters[name].read(value))
            except ValueError as error:
                raise ValueError(f'{self.label}: parameter "{name}" {error}, not {value!r}') from None
        return self._changed("parameters", parameters)

    def with_origin(self, origin: str) -> Task:
        """Return this task with the word of where it comes from."""
        return self._changed("origin", origin)

    def with_metrics(self, metrics: Sequence[str | Metric]) -> Task:
        """Return this task with other metrics."""
        return self._changed("metrics", tuple(metrics))

    def filled(self, inputs: Mapping[str, str]) -> Mapping[str, str]:
        """Return what prompts may name: inputs, and the parameters that have a value, as text."""
        said = {
            name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in self.settings.items()
        }
        return {**inputs, **said}

    def _changed(self, attribute: str, value: object) -> Task:
        changed = copy.copy(self)
        object.__setattr__(changed, attribute, value)
        return changed


PARTS: Mapping[str, tuple[type, ...]] = {
    "version": (int,),
    "summary": (str,),
    "parse": (Callable,),  # type: ignore[dict-item] # isinstance knows it
    "generation": (Generation,),
    "language": (str, type(None)),
    "no_answer": (str, type(None)),
    "adapter": (str, Path, type(None)),
}
"""What the parts of a task are; what is built wrong is told where it is built, and not in the middle of a run."""
ITEMS: Mapping[str, tuple[type, ...]] = {
    "fields": (Field,),
    "references": (str,),
    "prompts": (Prompt,),
    "datasets": (DataFile, HubDataset, DataFunction),
    "metrics": (str, Metric),
    "require_columns": (str,),
    "parameters": (Parameter,),
}
"""The same for what they hold."""
