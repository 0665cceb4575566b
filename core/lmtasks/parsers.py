"""Parsers, which make a prediction from a completion; YAML tasks name them, and any task may use them."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def first_line(completion: str) -> str:
    """Return the first line that is not blank; small models write an explanation after it."""
    return completion.strip().partition("\n")[0].strip()


def last_line(completion: str) -> str:
    """Return the last line that is not blank, which is the answer of a model that reasons first."""
    return completion.strip().rpartition("\n")[2].strip()


def first_paragraph(completion: str) -> str:
    """Return the text before the first blank line."""
    return completion.strip().partition("\n\n")[0].strip()


PARSERS: Mapping[str, Callable[[str], str]] = {
    "strip": str.strip,
    "first_line": first_line,
    "first_paragraph": first_paragraph,
    "last_line": last_line,
}
"""Parsers by their name in YAML; each accepts any text and adds nothing to it."""
