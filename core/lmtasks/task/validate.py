"""What is built wrong is told where it is built, and not in the middle of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

Named = TypeVar("Named")


def as_tuple(given: str | Iterable[Named]) -> tuple[str | Named, ...]:
    """Return names as a tuple; a single one for a tuple of one, where iterating would give its letters."""
    return (given,) if isinstance(given, str) else tuple(given)


def check_type(what: str, value: object, kinds: tuple[type, ...]) -> None:
    """Refuse a value of another kind.

    Raises:
        ValueError: says what it is and what was expected.
    """
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = [kind.__name__.replace("NoneType", "None").replace("str", "text") for kind in kinds]
        raise ValueError(f"{what} is {type(value).__name__}, expected {' or '.join(names)}")
