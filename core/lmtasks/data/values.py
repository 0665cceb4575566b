"""Converts values of JSON, Parquet and hub data sets to text: missing values and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from lmtasks.text_utils import as_utf8, is_blank

_MAX_EXPONENT = 30
"""Largest power of ten, positive or negative, that a float is written out with; others get an exponent."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A value that is not text, a number, a list or an object: a timestamp, bytes, damaged data.

    It is an error only if a task needs the value.
    """

    kind: str
    """Description for messages: "a timestamp[ns]", "text that is not UTF-8"."""
    damaged: bool = False
    """Whether the file is damaged here."""


def finite(number: float) -> float | None:
    """Return a number, or None for NaN and infinities, which mean a missing value, as null does."""
    return number if math.isfinite(number) else None


def as_text(value: object) -> str | None:
    """Return a text or number as text, without surrounding space; None for other values.

    A number's text is the same whatever type it was stored in, without an exponent: 101 for an integer, a float 101.0
    and a decimal 101.00, 0.00001 for 1e-05. Text without a visible character becomes "".
    """
    if isinstance(value, str):
        text = as_utf8(value.strip())
        return "" if is_blank(text) else text
    if isinstance(value, (bool, int)):
        return str(value)
    if isinstance(value, float):
        exact = Decimal(repr(value))
        return as_text(exact) if abs(exact.adjusted()) <= _MAX_EXPONENT else repr(value)
    if isinstance(value, Decimal):
        return canonical_number(format(value, "f"))
    return None


def canonical_number(text: str) -> str:
    """Return a plain decimal number such as "007" or "101.0" in a canonical form, the same for equal numbers.

    Args:
        text: digits, with an optional sign and decimal point.
    """
    whole, _, fraction = text.lstrip("+-").partition(".")
    number = whole.lstrip("0") or "0"
    if fraction := fraction.rstrip("0"):
        number += f".{fraction}"
    return f"-{number}" if text.startswith("-") and number != "0" else number


def kind_of(value: object) -> str:
    """Return the kind of a value for messages: "a list", "an object (of text, start)"."""
    if isinstance(value, Unreadable):
        return value.kind
    if isinstance(value, Mapping):
        return f"an object (of {', '.join(map(str, value))})"
    return {"list": "a list", "NoneType": "nothing"}.get(type(value).__name__, f"a {type(value).__name__}")
