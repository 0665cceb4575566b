"""Strict JSON: no repeated key, no NaN or infinity, bounded nesting."""

from __future__ import annotations

import json
import math
import reprlib
from typing import Any

MAX_DEPTH = 100
"""Lists and objects within each other that `check_depth` allows; Python gives up at about a thousand."""


class RecordError(ValueError):
    """A value does not have its declared type; the one-line message names its path in the JSON."""


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is not JSON, an object has a key twice, a number is NaN, infinite or too large for a float, or it
            is nested too deeply. The message is one line.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def check_depth(value: object) -> None:
    """Refuse JSON that is nested more than `MAX_DEPTH` deep, so that it can be written again.

    Raises:
        RecordError: it is nested more deeply.
    """
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for outer in level
            if isinstance(outer, (dict, list))
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise RecordError("it is nested too deeply")


def abbreviate(value: object) -> str:
    """Return a value for a message: control characters are escaped, long and deep values abbreviated."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = 60
    brief.maxlevel = 2
    return brief.repr(value)


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {abbreviate(repeated)} occurs twice in one object")
    return values


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {abbreviate(text)} is too large")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_float=_finite)
