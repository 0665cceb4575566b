"""How an example is put to a model, and how the model answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from string import Template
from typing import Literal

from lmtasks.task.validate import as_tuple, check_type


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
        object.__setattr__(self, "columns", as_tuple(self.columns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """How an example is put to a model.

    The parts are templates in which "$name" stands for a field; a line that names an optional field is left
    out where the example lacks it. A part may also be a function of the inputs that returns the text.
    """

    user: str | Callable[[Mapping[str, str]], str]
    system: str | Callable[[Mapping[str, str]], str] = ""
    answer_prefix: str = ""
    """What the answer follows in the plain form for base models, such as "Summary:"."""
    example_separator: str = "\n\n"
    """What stands between examples in the plain form, and therefore ends an answer there."""

    def __post_init__(self) -> None:
        """Refuse parts that are neither text nor functions, and a separator that would end every answer at once.

        Raises:
            ValueError: says which part it is.
        """
        for part in ("user", "system"):
            if not isinstance(getattr(self, part), str) and not callable(getattr(self, part)):
                raise ValueError(f"{part} of a prompt is neither text nor a function of the inputs")
        for part in ("answer_prefix", "example_separator"):
            check_type(f"{part} of a prompt", getattr(self, part), (str,))
        if not self.example_separator:
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
            check_type(part, getattr(self, part), (int,))
        for part in ("temperature", "top_p", "repetition_penalty"):
            check_type(part, getattr(self, part), (float, int))
        if not 1 <= self.max_new_tokens < 2**63:
            raise ValueError(f"max_new_tokens must be at least 1 and below 2**63, not {self.max_new_tokens}")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be 0 (greedy) or more, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if not 0 <= self.top_k < 2**63:
            raise ValueError(f"top_k must be 0 (all) or more and below 2**63, not {self.top_k}")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"repetition_penalty must be above 0 (1: none), not {self.repetition_penalty}")
        if self.temperature == 0 and (self.top_p < 1 or self.top_k > 0):
            raise ValueError("top_p and top_k need a temperature above 0: greedy generation ignores them")
        object.__setattr__(self, "stop", as_tuple(self.stop))
        for text in self.stop:
            check_type("a stop string", text, (str,))
        if any(not text for text in self.stop):
            raise ValueError("an empty stop string would end every completion at once")
