"""The inputs of a task, and the prompts made from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from string import Template
from typing import Literal

from lmtasks.task.validate import as_tuple, check_type


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """An input of a task, and the names of its column in data."""

    columns: tuple[str, ...] = ()
    """Further names of its column in data, best first; the field's own name always comes before them.
    "a.b" reaches into nested columns."""
    required: bool = True
    truncatable: bool = False
    """Whether its end may be removed when the prompt is too long for the model."""

    def __post_init__(self) -> None:
        """Make a tuple of the column names; a single name becomes a tuple of one."""
        object.__setattr__(self, "columns", as_tuple(self.columns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """How an example becomes a prompt.

    The parts are templates in which "$name" stands for a field or a parameter; a line that names an optional field is
    left out if the example lacks it. A part may also be a function that takes the inputs and returns the text.
    """

    user: str | Callable[[Mapping[str, str]], str]
    system: str | Callable[[Mapping[str, str]], str] = ""
    answer_prefix: str = ""
    """Text before the answer in the plain form for base models, such as "Summary:"."""
    example_separator: str = "\n\n"
    """Text between examples in the plain form; it is also the stop string there."""

    def __post_init__(self) -> None:
        """Check the types of the parts, and that the separator is not empty.

        Raises:
            ValueError: names the part that is wrong.
        """
        for part in ("user", "system"):
            if not isinstance(getattr(self, part), str) and not callable(getattr(self, part)):
                raise ValueError(f"{part} of a prompt is neither text nor a function of the inputs")
        for part in ("answer_prefix", "example_separator"):
            check_type(f"{part} of a prompt", getattr(self, part), (str,))
        if not self.example_separator:
            raise ValueError("example_separator of a prompt must not be empty: it ends the answers of base models")

    def fill(self, part: Literal["system", "user"], inputs: Mapping[str, str]) -> str:
        """Return the text of one part for these inputs, without leading or trailing white space."""
        template = self.system if part == "system" else self.user
        if callable(template):
            return template(inputs).strip()
        lines = [
            line for line in template.split("\n") if all(name in inputs for name in Template(line).get_identifiers())
        ]
        return Template("\n".join(lines)).substitute(inputs).strip()

    def variables(self) -> set[str]:
        """Return the names that stand behind "$" in the templates; parts that are functions have none.

        Raises:
            ValueError: a template has a "$" that is neither a name nor "$$".
        """
        templates = [part for part in (self.system, self.user) if isinstance(part, str)]
        for template in templates:
            if not Template(template).is_valid():
                raise ValueError(f'a "$" that names no field in "{template}"; write "$$" for the sign itself')
        return {name for template in templates for name in Template(template).get_identifiers()}
