"""Values of JSON, Parquet and hub sets as text: which ones are missing, and how a number is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from lmtasks.text_utils import as_utf8, is_blank

_WRITTEN_OUT = 30
"""Powers of ten, up and down, that a float is written out to; further ones have an exponent, as Python writes it."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a value that is no text, number, list or object: a timestamp, bytes, damaged data.

    It is an error only where a task needs the value.
    """

    kind: str
    """For messages: "a timestamp[ns]", "text that is not UTF-8"."""
    damaged: bool = False
    """Whether the file should have held something else."""


def finite(number: float) -> float | None:
    """Return a number, or None for NaN and infinities, which stand for missing values as null does."""
    return number if math.isfinite(number) else None


def as_text(value: object) -> str | None:
    """Return the text of a text or a number, without space around it; None for what is neither.

    A number's text is the same whatever type it was stored in, without an exponent: 101 for an integer, a float 101.0
    and a decimal 101.00, 0.00001 for 1e-05. Text in which nothing can be seen is returned as "".
    """
    if isinstance(value, str):
        text = as_utf8(value.strip())
        return "" if is_blank(text) else text
    if isinstance(value, (bool, int)):
        return str(value)
    if isinstance(value, float):
        exact = Decimal(repr(value))
        return as_text(exact) if abs(exact.adjusted()) <= _WRITTEN_OUT else repr(value)
    if isinstance(value, Decimal):
        return canonical_number(format(value, "f"))
    return None


def canonical_number(text: str) -> str:
    """Return a plain decimal number such as "007" or "101.0" in the one form that all numbers of its value share.

    Args:
        text: digits, perhaps with a sign before them and a decimal point among them.
    """
    whole, _, fraction = text.lstrip("+-").partition(".")
    number = whole.lstrip("0") or "0"
    if fraction := fraction.rstrip("0"):
        number += f".{fraction}"
    return f"-{number}" if text.startswith("-") and number != "0" else number


def kind(value: object) -> str:
    """Return what a value is, for messages: "a list", "an object (of text, start)"."""
    if isinstance(value, Unreadable):
        return value.kind
    if isinstance(value, Mapping):
        return f"an object (of {', '.join(map(str, value))})"
    return {"list": "a list", "NoneType": "nothing"}.get(type(value).__name__, f"a {type(value).__name__}")
