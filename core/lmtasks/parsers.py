"""From what a model wrote to a prediction: the ways that a YAML task names, and that any task may use."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def first_line(completion: str) -> str:
    """Return the first line that is not blank: small models go on with an explanation."""
    return completion.strip().partition("\n")[0].strip()


def last_line(completion: str) -> str:
    """Return the last line that is not blank: the answer of a model that thinks aloud first."""
    return completion.strip().rpartition("\n")[2].strip()


def first_paragraph(completion: str) -> str:
    """Return what comes before the first blank line."""
    return completion.strip().partition("\n\n")[0].strip()


PARSERS: Mapping[str, Callable[[str], str]] = {
    "strip": str.strip,
    "first_line": first_line,
    "first_paragraph": first_paragraph,
    "last_line": last_line,
}
"""By the name that a YAML file gives; all are total, and none adds anything."""
