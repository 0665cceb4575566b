"""Parameters: the settings of a task that users may change."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lmtasks.task.validate import as_tuple

Value = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A setting of a task that its prompts name like a field: `--set tone=formal`."""

    summary: str = ""
    """Its effect in one line, for `lmtasks show`."""
    default: Value | None = None
    """The value unless the parameter is set; None: no value, and lines of a prompt that name it are left out.

    A parameter with the name of a field has no default; once set, it replaces the field in every example.
    """
    type: type[Value] | None = None
    """Type of its values; None: that of the default, or text."""
    choices: tuple[str, ...] = ()
    """The texts that are allowed; empty: any."""
    minimum: float | None = None
    maximum: float | None = None
    """The range of a number, ends included."""

    def __post_init__(self) -> None:
        """Convert the choices, infer the type, and check the default.

        Raises:
            ValueError: the default is not allowed; says what is.
        """
        object.__setattr__(self, "choices", as_tuple(self.choices))
        object.__setattr__(self, "type", self.type or (str if self.default is None else type(self.default)))
        if self.choices and self.type is not str:
            raise ValueError("choices are texts: a number has minimum and maximum")
        if self.default is not None:
            object.__setattr__(self, "default", self.read(self.default))

    def read(self, source: object) -> Value:
        """Return a value of this parameter's type, made from text of the command line or from a Python value.

        Raises:
            ValueError: the value is not allowed; says what is expected.
        """
        value = self._from_text(source.strip()) if isinstance(source, str) else source
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
        names: dict[object, str] = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
        bounds = [f"of at least {self.minimum:g}"] if self.minimum is not None else []
        bounds += [f"of at most {self.maximum:g}"] if self.maximum is not None else []
        return f"must be {' '.join([names[self.type], ' and '.join(bounds)]).strip()}"
