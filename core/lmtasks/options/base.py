"""The base of all settings, and the checks that they share."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import date
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args

from lmtasks.errors import UsageError, option, unknown_name
from lmtasks.languages import states_language
from lmtasks.task import as_tuple

INT_LIMIT = 2**63
"""Whole numbers are below this: they fit 64 bits, as records and most libraries need."""
THINKING_SWITCHES = ("enable_thinking", "thinking")
"""Chat-template variables that turn a model's reasoning on or off, and so must be true or false."""
OptionsT = TypeVar("OptionsT", bound="Options")


class Options:
    """Base of the frozen dataclasses of settings.

    Each group checks its own fields in `__post_init__` and calls the next one's by `super()`, so that a class composed
    of several groups checks all of them.
    """

    def __post_init__(self) -> None:
        """End the chain of checks."""

    def _convert(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_names(self, *names: str) -> None:
        """Convert a single name or a list of names to a tuple."""
        for name in names:
            if getattr(self, name) is not None:
                self._convert(name, as_tuple(getattr(self, name)))

    def _check_counts(self, **minimum: int) -> None:
        """Refuse values that are neither None nor a whole number of at least the minimum.

        Raises:
            UsageError: names the option.
        """
        for name, least in minimum.items():
            value = getattr(self, name)
            if value is None or (isinstance(value, int) and least <= value < INT_LIMIT):
                continue
            if isinstance(value, int) and abs(value) >= INT_LIMIT:  # may be too long to be printed
                raise UsageError(f"{option(name)} must be a whole number of at least {least} and below 2**63")
            raise UsageError(f"{option(name)} must be a whole number of at least {least}, not {value!r}")

    def _check_number(self, name: str, low: float, high: float = math.inf, *, above: bool = False) -> None:
        """Refuse a value that is neither None nor a number in a range, and convert it to float.

        Args:
            name: of the option.
            low: the smallest value.
            high: the largest value.
            above: whether `low` itself is refused.

        Raises:
            UsageError: names the option and the range.
        """
        value = getattr(self, name)
        if value is None:
            return
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not low <= value <= high or (above and value == low) or value > sys.float_info.max:
            bound = "more than" if above else "at least"
            upper = f" and at most {high:g}" if math.isfinite(high) else ""
            # A whole number may be too long to be printed.
            given = "" if isinstance(value, int) and abs(value) >= INT_LIMIT else f", not {value!r}"
            raise UsageError(f"{option(name)} must be a number of {bound} {low:g}{upper}{given}")
        self._convert(name, float(value))

    def _check_paths(self, *names: str) -> None:
        """Refuse values that are neither None nor a name or path.

        Raises:
            UsageError: names the option.
        """
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, (str, Path, NoneType)):
                raise UsageError(f"{option(name)} must be a name or a path, not {type(value).__name__}")

    def _check_choices(self, **choices: object) -> None:
        """Refuse values that are not among a `Literal`'s.

        Raises:
            UsageError: names the option and the values.
        """
        for name, choice in choices.items():
            value, known = getattr(self, name), get_args(choice)
            if value not in known:
                raise UsageError(f"{option(name)} must be one of {', '.join(known)}, not {value!r}")

    def _check_flags(self, *names: str) -> None:
        """Refuse values that are neither True nor False.

        Raises:
            UsageError: names the option.
        """
        for name in names:
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{option(name)} must be true or false, not {getattr(self, name)!r}")


def with_changes(options: OptionsT, changes: Mapping[str, Any], kind: str) -> OptionsT:
    """Return options with some values replaced.

    Args:
        options: the settings.
        changes: values by field name.
        kind: what an option is called in a message, such as "option of a run".

    Raises:
        UsageError: a value is out of range.
        UnknownNameError: there is no such option; the message offers the nearest name.
    """
    known = [field.name for field in fields(options)]  # type: ignore[arg-type]
    for name in changes:
        if name not in known:
            raise unknown_name(kind, name, known)
    return replace(options, **changes)  # type: ignore[type-var]


def check_language(language: str | None) -> None:
    """Refuse what is neither None nor a BCP 47 language tag.

    Raises:
        UsageError: says what is expected.
    """
    if language is not None and not states_language(language):
        raise UsageError(f'{option("language")} must be a BCP 47 tag such as "zh" or "pt-BR", not "{language}"')


def check_chat_template(kwargs: object, day: object) -> None:
    """Refuse settings of a chat template that are not values by name, and a date that is none.

    Raises:
        UsageError: names the setting and what is expected.
    """
    plain = (str, int, float, bool, NoneType)
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise UsageError(f"{option('chat_template_kwargs')} must be values by name, not {kwargs!r}")
    for name, value in kwargs.items():
        if not isinstance(value, plain) or (isinstance(value, float) and not math.isfinite(value)):
            raise UsageError(
                f"{option('chat_template_kwargs')}: {name} must be text, a number, true, false or null, not {value!r}"
            )
        if name in THINKING_SWITCHES and not isinstance(value, bool):
            raise UsageError(f"{option('chat_template_kwargs')}: {name} must be true or false, not {value!r}")
    if day is not None:
        try:
            date.fromisoformat(str(day))
        except ValueError:
            name = option("chat_template_date")
            raise UsageError(f'{name} must be a date such as "2026-11-28", not {day!r}') from None
