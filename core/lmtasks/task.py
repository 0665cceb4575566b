"""The words of lmtasks as types: what a task is made of, what a run records, what a metric returns.

Standard library only, so that a plugin that imports it starts at once.
"""

from __future__ import annotations

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
        """Refuse a separator that would end every answer at once.

        Raises:
            ValueError: the separator is empty.
        """
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
    """Field name to column name, where the file uses others than the task knows."""


DataSource = DataFile | Callable[[str], Iterable[Example]]
"""A file, or a function from the split's name to its examples. Data is read when asked for, not before."""


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class Task:
    """Prompt, data, metric: everything lmtasks needs to run a task with a model.

    The short forms are taken at the door: a list of names for `fields`, a plain string for a prompt.
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

    def __init__(
        self,
        *,
        name: str,
        version: int,
        summary: str,
        fields: Mapping[str, Field] | Sequence[str],
        prompts: Mapping[str, str | Prompt],
        datasets: Mapping[str, DataSource],
        metrics: Sequence[str | Metric],
        references: Sequence[str] = (),
        parse: Callable[[str], str] = str.strip,
        generation: Generation | None = None,
        language: str | None = None,
        no_answer: str | None = None,
        expects: Mapping[str, str] | None = None,
        adapter: str | Path | None = None,
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
            "datasets": dict(datasets),
            "metrics": names(metrics),
            "parse": parse,
            "generation": generation or Generation(),
            "language": language,
            "no_answer": no_answer,
            "expects": dict(expects or {}),
            "adapter": adapter,
        }
        for attribute in dataclasses.fields(type(self)):
            object.__setattr__(self, attribute.name, values[attribute.name])
        self._check()

    def _check(self) -> None:
        if not TASK_NAME.fullmatch(self.name):
            raise ValueError(
                f'task name "{self.name}": expected the plugin\'s name, or "plugin/variant", in lower case'
            )
        for part in ("fields", "prompts", "datasets"):
            if not getattr(self, part):
                raise ValueError(f'task "{self.name}": {part} is empty, at least one is needed')
        for name, prompt in self.prompts.items():
            unknown = sorted(prompt.names() - set(self.fields))
            if unknown:
                raise ValueError(
                    f'task "{self.name}": prompt "{name}" names ${unknown[0]}, which is not among the fields'
                    f" ({', '.join(self.fields)})"
                )
