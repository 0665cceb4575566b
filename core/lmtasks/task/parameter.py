"""Settings of a task."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lmtasks.task.validate import as_tuple

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
    minimum: float | None = None
    maximum: float | None = None
    """The range of a number, its ends included."""

    def __post_init__(self) -> None:
        """Refuse a parameter whose own value is none that it allows.

        Raises:
            ValueError: says what it may be.
        """
        object.__setattr__(self, "choices", as_tuple(self.choices))
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
        low, high = self.minimum is not None and value < self.minimum, self.maximum is not None and value > self.maximum
        return math.isfinite(value) and not low and not high

    def _expected(self) -> str:
        if self.choices:
            return f"must be one of {', '.join(self.choices)}"
        kinds: dict[object, str] = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
        bounds = [f"of at least {self.minimum:g}"] if self.minimum is not None else []
        bounds += [f"of at most {self.maximum:g}"] if self.maximum is not None else []
        return f"must be {' '.join([kinds[self.type], ' and '.join(bounds)]).strip()}"
