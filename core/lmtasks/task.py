"""The words of lmtasks as types: what a task is made of, what a run records, what a metric returns.

Standard library only, so that a plugin that imports it starts at once.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

Named = TypeVar("Named")
TASK_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)?")

Finish = Literal["stop", "length", "skipped", "unknown"]
"""Why a completion ended: an end token or stop string, the limit of new tokens, it was never begun, or the output
was made elsewhere."""


def names(given: str | Iterable[Named]) -> tuple[str | Named, ...]:
    """Return names as a tuple; a single one for a tuple of one, where iterating would give its letters."""
    return (given,) if isinstance(given, str) else tuple(given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One item: what a prompt may use, and every answer that counts as right."""

    id: str
    """Unique in its data set; reports and reuse key on it."""
    inputs: Mapping[str, str]
    """Text by field name; optional fields may be missing."""
    references: tuple[str, ...] = ()
    """Every right answer; "" alone says that giving no answer is right; empty for data without references."""
    target: str | None = None
    """What a few-shot answer shows and training learns to write; None: the first reference."""
    language: str | None = None
    """Of the references, a BCP 47 tag such as "zh" or "en"; None: read from their script."""
    meta: Mapping[str, str] = field(default_factory=dict)
    """Whatever else the data says of it (topic, domain); reports may slice by it."""

    @property
    def answer(self) -> str | None:
        """What a model should write: the target, else the first reference, else None."""
        if self.target is not None:
            return self.target
        return self.references[0] if self.references else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """An input of a task, and how data names it."""

    columns: tuple[str, ...] = ()
    """Further column names it is known by, best first; its own name always comes before them.
    "a.b" reaches into nested columns."""
    required: bool = True
    cut: bool = False
    """May lose its end when the prompt is too long for the model."""

    def __post_init__(self) -> None:
        """Take a single column name for a tuple of one."""
        object.__setattr__(self, "columns", names(self.columns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """How an example is put to a model.

    The parts are templates in which "$name" stands for a field; a line that names an optional field is left
    out where the example lacks it. A part may also be a function of the inputs that returns the text.
    """

    user: str | Callable[[Mapping[str, str]], str]
    system: str | Callable[[Mapping[str, str]], str] = ""
    cue: str = ""
    """What the answer follows in the plain form for base models, such as "Summary:"."""
    separator: str = "\n\n"
    """What stands between examples in the plain form, and therefore ends an answer there."""

    def __post_init__(self) -> None:
        """Refuse parts that are neither text nor functions, and a separator that would end every answer at once.

        Raises:
            ValueError: says which part it is.
        """
        for part in ("user", "system"):
            if not isinstance(getattr(self, part), str) and not callable(getattr(self, part)):
                raise ValueError(f"{part} of a prompt is neither text nor a function of the inputs")
        for part in ("cue", "separator"):
            _check_kind(f"{part} of a prompt", getattr(self, part), (str,))
        if not self.separator:
            raise ValueError("a prompt's separator must not be empty: it ends the answers of base models")

    def fill(self, part: Literal["system", "user"], inputs: Mapping[str, str]) -> str:
        """Return the text of one part for these inputs, without leading or trailing space."""
        template = self.system if part == "system" else self.user
        if callable(template):
            return template(inputs).strip()
        lines = [
            line for line in template.split("\n") if all(name in inputs for name in Template(line).get_identifiers())
        ]
        return Template("\n".join(lines)).substitute(inputs).strip()

    def names(self) -> set[str]:
        """Return the fields that the templates name; functions tell nothing.

        Raises:
            ValueError: a template has a "$" that is neither a name nor "$$".
        """
        templates = [part for part in (self.system, self.user) if isinstance(part, str)]
        for template in templates:
            if not Template(template).is_valid():
                raise ValueError(f'a "$" that names no field in "{template}"; write "$$" for the sign itself')
        return {name for template in templates for name in Template(template).get_identifiers()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """How a completion is drawn from the model."""

    max_new_tokens: int = 128
    stop: tuple[str, ...] = ()
    """Strings that end a completion; they are cut from its text."""
    temperature: float = 0.0
    """0 takes the likeliest token at every step (greedy)."""
    top_p: float = 1.0
    """Sample among the likeliest tokens that together hold this share of the probability, 0 to 1."""
    top_k: int = 0
    """Sample among this many likeliest tokens; 0: all of them."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that prompt or answer hold already become less likely; 1: they do not."""

    def __post_init__(self) -> None:
        """Refuse values outside their ranges.

        Raises:
            ValueError: a value that no model can be asked for, or sampling settings without a temperature.
        """
        for part in ("max_new_tokens", "top_k"):
            _check_kind(part, getattr(self, part), (int,))
        for part in ("temperature", "top_p", "repetition_penalty"):
            _check_kind(part, getattr(self, part), (float, int))
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be 0 (greedy) or more, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (all) or more, not {self.top_k}")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"repetition_penalty must be above 0 (1: none), not {self.repetition_penalty}")
        if self.temperature == 0 and (self.top_p < 1 or self.top_k > 0):
            raise ValueError("top_p and top_k need a temperature above 0: greedy generation ignores them")
        object.__setattr__(self, "stop", names(self.stop))
        for text in self.stop:
            _check_kind("a stop string", text, (str,))
        if any(not text for text in self.stop):
            raise ValueError("an empty stop string would end every completion at once")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLikelihood:
    """How likely a model finds a text as the answer to a prompt; its end token is not counted in."""

    logprob: float
    """The natural logarithm of the text's probability."""
    tokens: int
    """How many tokens of the model the text has."""
    bytes: int
    """How many bytes of UTF-8 the text has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One example with what the model made of it: a line of samples.jsonl."""

    index: int
    """Its place in the data, from 0."""
    id: str
    inputs: Mapping[str, str]
    references: tuple[str, ...]
    prediction: str
    """The completion as the task parsed it."""
    language: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    prompt_sha256: str = ""
    prompt_tokens: int = 0
    cut: Mapping[str, int] = field(default_factory=dict)
    """Characters that each field lost to fit the model."""
    completion: str = ""
    """The raw text of the model."""
    finish: Finish = "stop"
    completion_tokens: int = 0
    loglikelihoods: tuple[LogLikelihood, ...] = ()
    """Of the references under the model, in their order, where they were asked for."""
    error: str | None = None
    """Why the task could not read the completion; the prediction is then empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One number about a corpus, with all that is needed to compare it."""

    name: str
    value: float
    unit: str
    """The scale: "0-100" for the usual metrics."""
    signature: str
    """Metric, version, tokenizer, language, references: scores with other signatures do not compare."""
    higher_is_better: bool | None
    """None where neither is: a length ratio, or a foreign metric that does not say."""
    language: str | None
    """Of the references it was computed on; a mixed set has a score for each. None: could not be told, or any."""
    n: int
    """How many examples it was computed on."""
    low: float | None = None
    high: float | None = None
    """The 95% bootstrap interval; None where it was not asked for or examples cannot be resampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreKind:
    """What one value of a measurement is called and means."""

    name: str
    signature: str
    unit: str = "0-100"
    higher_is_better: bool | None = True
    n: int | None = None
    """How many examples it is computed on, where those are not all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Statistics per example that add up, and the corpus scores as a function of their sum.

    Whatever needs other weights on the examples (intervals, paired tests) sums again and never measures again.
    """

    statistics: FloatArray
    """Shape [examples, statistics]. Without any statistics, shape [examples, 0], the scores are known for the corpus
    alone: they have no interval and no test."""
    kinds: tuple[ScoreKind, ...]
    combine: Callable[[FloatArray], FloatArray]
    """From sums of statistics, shape [..., statistics], to values, shape [..., kinds]."""


@runtime_checkable
class Metric(Protocol):
    """Scores a corpus."""

    @property
    def name(self) -> str:
        """What tasks and `--metrics` call it."""
        ...

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        """Measure samples whose references are all in one language.

        Args:
            samples: at least one; each has at least one reference. An empty prediction counts like any other.
            language: of the references, a BCP 47 tag; None where it could not be told.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """A data set in a file: JSONL, CSV, TSV or Parquet. A column "split" divides it, where it has one."""

    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field name (or "references", "id", "language") to column name, where the file uses others than the task knows."""
    license: str | None = None
    """Under which terms the data may be used, best as an SPDX identifier: "CC-BY-4.0"."""
    language: str | None = None
    """Of the references, a BCP 47 tag, where neither rows nor flags say."""

    def __post_init__(self) -> None:
        """Take text for a path."""
        object.__setattr__(self, "path", Path(self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFunction:
    """A data set that a function reads."""

    read: Callable[[str], Iterable[Example]]
    """From the split's name to its examples; nothing where there is no such split."""
    license: str | None = None
    """As in DataFile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubDataset:
    """A data set of the Hugging Face hub (or in a local folder of the same layout) that holds plain files."""

    id: str
    revision: str | None = None
    """A commit, so that the same data comes again; None: the newest."""
    config: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    """As in DataFile."""
    license: str | None = None
    """As in DataFile."""
    language: str | None = None
    """As in DataFile."""

    def __str__(self) -> str:
        """Return it as `--data` takes it."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"hub:{self.id}{revision}{f'#{self.config}' if self.config else ''}"


DataSource = DataFile | HubDataset | DataFunction
"""Where examples come from. Data is read when asked for, not before."""

Value = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A setting of a task that its prompts name like a field: `--set tone=formal`."""

    summary: str = ""
    """What it does, for `lmtasks show`."""
    value: Value | None = None
    """What it is unless it is set; None: nothing, and lines of a prompt that name it are left out.

    A parameter of a field's name begins with None; once set, it takes the field's place in every example.
    """
    type: type[Value] | None = None
    """That its values have; None: that of `value`, or text."""
    choices: tuple[str, ...] = ()
    """The only texts it may be; empty: any."""
    least: float | None = None
    most: float | None = None
    """The range of a number, its ends included."""

    def __post_init__(self) -> None:
        """Refuse a parameter whose own value is none that it allows.

        Raises:
            ValueError: says what it may be.
        """
        object.__setattr__(self, "choices", names(self.choices))
        object.__setattr__(self, "type", self.type or (str if self.value is None else type(self.value)))
        if self.choices and self.type is not str:
            raise ValueError("choices are texts: a number has least and most")
        if self.value is not None:
            object.__setattr__(self, "value", self.read(self.value))

    def read(self, given: object) -> Value:
        """Return a value of this parameter's type from text of the command line, or from Python.

        Raises:
            ValueError: it is not one; says what is expected.
        """
        value = self._from_text(given.strip()) if isinstance(given, str) else given
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, (str, int, float)) or type(value) is not self.type or not self._allows(value):
            raise ValueError(self._expected())
        return value

    def _from_text(self, text: str) -> Value | None:
        if self.type is bool:
            return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}.get(text.lower())
        try:
            return self.type(text) if self.type else text
        except ValueError:
            return None

    def _allows(self, value: Value) -> bool:
        if isinstance(value, str):
            return value in self.choices if self.choices else bool(value)
        low, high = self.least is not None and value < self.least, self.most is not None and value > self.most
        return math.isfinite(value) and not low and not high

    def _expected(self) -> str:
        if self.choices:
            return f"must be one of {', '.join(self.choices)}"
        kinds: dict[object, str] = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
        bounds = [f"of at least {self.least:g}"] if self.least is not None else []
        bounds += [f"of at most {self.most:g}"] if self.most is not None else []
        return f"must be {' '.join([kinds[self.type], ' and '.join(bounds)]).strip()}"


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
    expects: Mapping[str, str]
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
        expects: Mapping[str, str] | None = None,
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
            expects: columns that must hold this value where the data has them, such as {"target_lang": "zh"}.
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
            "fields": dict(fields) if isinstance(fields, Mapping) else {name: Field() for name in names(fields)},
            "references": names(references),
            "prompts": {
                key: Prompt(user=prompt) if isinstance(prompt, str) else prompt for key, prompt in prompts.items()
            },
            "datasets": {
                key: DataFunction(read=source) if callable(source) else source for key, source in datasets.items()
            },
            "metrics": names(metrics),
            "parse": parse,
            "generation": generation or Generation(),
            "language": language,
            "no_answer": no_answer,
            "expects": dict(expects or {}),
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
            _check_kind(f'task "{self.name}": {part}', getattr(self, part), kinds)
        for part, kind in ITEMS.items():
            held = getattr(self, part)
            for key in held if isinstance(held, Mapping) else ():
                _check_kind(f'task "{self.name}": the name of one of its {part}', key, (str,))
            for item in held.values() if isinstance(held, Mapping) else held:
                _check_kind(f'task "{self.name}": one of its {part}', item, kind)
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

    def from_origin(self, origin: str) -> Task:
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
    "expects": (str,),
    "parameters": (Parameter,),
}
"""The same for what they hold."""


def _check_kind(what: str, value: object, kinds: tuple[type, ...]) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = [kind.__name__.replace("NoneType", "None").replace("str", "text") for kind in kinds]
        raise ValueError(f"{what} is {type(value).__name__}, expected {' or '.join(names)}")
