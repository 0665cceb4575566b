"""Checks and conversions of the parts of a task, done where it is made and not during a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def as_tuple(items: str | Iterable[Item]) -> tuple[str | Item, ...]:
    """Return items as a tuple; a single string becomes a tuple of one, and not of its letters."""
    return (items,) if isinstance(items, str) else tuple(items)


def check_type(name: str, value: object, types: tuple[type, ...]) -> None:
    """Refuse a value of another type; a bool is no int here.

    Args:
        name: begins the message.
        value: is checked.
        types: any of them is right.

    Raises:
        ValueError: says which type the value has, and which was expected.
    """
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        names = [type_.__name__.replace("NoneType", "None").replace("str", "text") for type_ in types]
        raise ValueError(f"{name} is {type(value).__name__}, expected {' or '.join(names)}")
