"""JSON that people or other programs may have edited: parsed strictly, and checked against a declared type.

The declared types are TypedDicts and dataclasses, so that what a record holds is written down once.
"""

from __future__ import annotations

import json
import math
import reprlib
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import date
from functools import cache
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

MOST_LEVELS = 100
"""Lists and objects within each other that `refuse_deep` allows; Python gives up at about a thousand."""
INTEGERS = range(-(2**63), 2**63)
"""What fits 64 bits: larger numbers are no counts, and overflow where they are divided."""


class ShapeError(ValueError):
    """A value is not of its declared type; the message names its place in the JSON."""


@dataclass(frozen=True, slots=True)
class AtLeast:
    """The smallest value of a number: `Annotated[int, AtLeast(0)]`."""

    least: float

    @property
    def expected(self) -> str:
        """What a message says was expected."""
        return f"a number of at least {self.least:g}"

    def fits(self, value: Any) -> bool:
        """Return whether a number is large enough."""
        return bool(value >= self.least)


@dataclass(frozen=True, slots=True)
class Day:
    """A text that is a date: `Annotated[str, Day()]`."""

    expected: str = "a date such as 2026-01-31"

    def fits(self, value: str) -> bool:
        """Return whether a text is a date as `date.isoformat` writes it."""
        try:
            return date.fromisoformat(value).isoformat() == value
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class _Problem:
    """Where a value is not of its declared type: `path` is like ".scores[0].value"; "" is the value itself."""

    path: str
    expected: str
    got: str

    def below(self, step: str) -> _Problem:
        """Return the same problem, as seen from one level above."""
        return _Problem(step + self.path, self.expected, self.got)

    def __str__(self) -> str:
        what = f"expected {self.expected}, got {self.got}" if self.expected else self.got
        return f"{self.path.removeprefix('.')}: {what}" if self.path else what


_Check = Callable[[Any], _Problem | None]


def parse_json(text: str) -> Any:
    """Return what a JSON text holds.

    Raises:
        ValueError: it is no JSON, an object has a key twice, a number is NaN, infinite or too large for a float, or it
            is nested too deeply. The message is one line.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {_short(twice)} stands twice in one object")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {_short(text)} is too large")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)


def refuse_deep(value: object) -> None:
    """Refuse JSON that is nested more than `MOST_LEVELS` deep, so that it can be written again.

    Raises:
        ShapeError: it is.
    """
    level: list[object] = [value]
    for _ in range(MOST_LEVELS):
        level = [
            item
            for outer in level
            if isinstance(outer, (dict, list))
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ShapeError("it is nested too deeply")


def check_shape(value: object, shape: Any) -> None:
    """Refuse JSON that is not of a declared type.

    Keys that a TypedDict does not declare are allowed, those that a dataclass has no field for are not.

    Args:
        value: as `json.loads` returns it.
        shape: text, numbers, bool, None, Literal, Annotated with `AtLeast` or `Day`, a list, tuple[X, ...], a mapping
            with text for keys, a union, a TypedDict, a dataclass (whose fields with a default may be missing), or
            object.

    Raises:
        ShapeError: says where, what was expected and what is there: "scores[0].value: expected a number, got 'x'".
    """
    if problem := _check(shape)(value):
        raise ShapeError(str(problem))


def _short(value: object) -> str:
    """Return a value for a message: control characters are escaped, long and deep values abbreviated."""
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = 60
    brief.maxlevel = 2
    return brief.repr(value)


@cache
def _check(shape: Any) -> _Check:
    """Return what finds the problem of a value that should be of this type."""
    origin, arguments = get_origin(shape), get_args(shape)
    if shape in _PLAIN:
        return _plain(*_PLAIN[shape])
    if origin in (Union, types.UnionType):
        return _union(tuple(map(_check, arguments)), nullable=types.NoneType in arguments)
    if origin is Literal:
        return _plain(" or ".join(map(repr, arguments)), lambda value: isinstance(value, str) and value in arguments)
    if origin is Annotated:
        return _restricted(_check(arguments[0]), arguments[1])
    if origin in (list, tuple):
        return _list(_check(arguments[0]))
    if origin in (dict, Mapping):
        return _mapping(_check(arguments[1]))
    if is_typeddict(shape) or is_dataclass(shape):
        return _object(shape)
    raise TypeError(f"{shape!r} cannot be checked")


_PLAIN: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    object: ("anything", lambda value: True),
    str: ("text", lambda value: type(value) is str),
    bool: ("true or false", lambda value: type(value) is bool),
    int: ("a whole number", lambda value: type(value) is int and value in INTEGERS),
    float: (
        "a number",
        lambda value: (type(value) is float and math.isfinite(value)) or (type(value) is int and value in INTEGERS),
    ),
    types.NoneType: ("null", lambda value: value is None),
}


def _plain(expected: str, fits: Callable[[Any], bool]) -> _Check:
    return lambda value: None if fits(value) else _Problem("", expected, _short(value))


def _restricted(check: _Check, limit: AtLeast | Day) -> _Check:
    def find(value: Any) -> _Problem | None:
        if problem := check(value):
            return problem
        return None if limit.fits(value) else _Problem("", limit.expected, _short(value))

    return find


def _union(checks: tuple[_Check, ...], *, nullable: bool) -> _Check:
    def find(value: Any) -> _Problem | None:
        if value is None and nullable:
            return None
        problems = []
        for check in checks:
            problem = check(value)
            if problem is None:
                return None
            problems.append(problem)
        deep = [problem for problem in problems if problem.path]
        return deep[0] if deep else _Problem("", " or ".join(one.expected for one in problems), _short(value))

    return find


def _list(check: _Check) -> _Check:
    def find(value: Any) -> _Problem | None:
        if type(value) is not list:
            return _Problem("", "a list", _short(value))
        for at, item in enumerate(value):
            if problem := check(item):
                return problem.below(f"[{at}]")
        return None

    return find


def _mapping(check: _Check) -> _Check:
    def find(value: Any) -> _Problem | None:
        if type(value) is not dict:
            return _Problem("", "an object", _short(value))
        for name, item in value.items():
            if problem := check(item):
                return problem.below(_step(name))
        return None

    return find


def _object(shape: Any) -> _Check:
    hints = get_type_hints(shape, include_extras=True)
    if is_typeddict(shape):
        closed, optional = False, {name for name, hint in hints.items() if get_origin(hint) is NotRequired}
    else:
        closed = True
        optional = {
            field.name
            for field in fields(shape)
            if field.default is not MISSING or field.default_factory is not MISSING
        }
    checks = {
        name: _check(get_args(hint)[0] if get_origin(hint) is NotRequired else hint) for name, hint in hints.items()
    }

    def find(value: Any) -> _Problem | None:
        if type(value) is not dict:
            return _Problem("", "an object", _short(value))
        for name, check in checks.items():
            if name in value:
                if problem := check(value[name]):
                    return problem.below(_step(name))
            elif name not in optional:
                return _Problem(_step(name), "", "missing")
        unknown = value.keys() - checks.keys() if closed else ()
        return _Problem(_step(min(unknown)), "", "unknown") if unknown else None

    return find


def _step(name: str) -> str:
    """Return how a key is written in the path of a problem."""
    return f".{name}" if name.isidentifier() and len(name) <= 60 else f"[{_short(name)}]"
