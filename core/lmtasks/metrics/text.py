"""Texts as tokens and sentences, in every language, without anything to download."""

from __future__ import annotations

import re

from lmtasks.metrics.language import SCRIPTS, UNSPACED

_CHARACTER = "|".join(SCRIPTS[tag] for tag in ("zh", "ja", "th", "lo", "my", "km"))
_TOKEN = re.compile(rf"{_CHARACTER}|(?:(?!{_CHARACTER})[^\W_])+")
_SENTENCE = re.compile(
    r"(?<=[。！？!?…])(?=[^\s。！？!?…”’」』）)\"'])|(?<=[.!?])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[^\W_a-z])|\n+"
)


def tokens(text: str) -> list[str]:
    """Return the tokens of a text in any script, lower-cased, without punctuation.

    A character of an unspaced script is a token, and so is a run of other letters and digits.
    """
    return _TOKEN.findall(text.lower())


def sentences(text: str) -> list[str]:
    """Return the sentences of a text: its lines, broken behind sentence ends.

    A full stop ends a sentence when space and something else than a small letter follow; Chinese and Japanese
    marks end one wherever they stand.
    """
    return [part.strip() for part in _SENTENCE.split(text) if part and part.strip()]


def is_unspaced(language: str) -> bool:
    """Tell whether a primary language subtag is written without spaces between words."""
    return language in UNSPACED
