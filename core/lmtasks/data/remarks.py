"""What is suspicious in the texts of a data set, whatever its task: damage, markup, words that stand for nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]
"""An error is refused by `run`, `score` or `train`; a warning is probably a mistake; a note is good to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something about a data file."""

    level: Level
    kind: str
    """A short name for programs, the same in every release: "repeated-example"."""
    message: str
    """One line, with the file and the first line that it holds for."""
    count: int = 1
    """How many rows it holds for."""


ODD: Mapping[str, tuple[str, re.Pattern[str]]] = {
    "control-character": ("control characters", re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")),
    "replacement-character": ("U+FFFD, left by a wrong decoding", re.compile("\ufffd")),
    "invisible-character": (
        "invisible characters (zero-width, soft hyphen, direction)",
        re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"),
    ),
    "mojibake": (
        "UTF-8 that was decoded as Latin-1",
        re.compile(
            "Ã[\u0080-\u00bf\u0152-\u017e\u0192\u2013-\u2022\u20ac]|â€[\u0080-\u00bf\u0152-\u2122]|Â[\u00a0-\u00bf]"
        ),
    ),
    "html": (
        "HTML tags or entities",
        re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{2,5});|</?(?:p|br|div|span|b|i|a|li|ul|td|tr|script)(?:\s[^<>]{0,200})?/?>"),
    ),
    "control-token": (
        "control tokens of language models (they stay text)",
        re.compile(r"<\|[a-z_]{2,30}\|>|\[/?INST\]|</?s>|<(?:start|end)_of_turn>|</?think>"),
    ),
    "escaped-line-break": (r"line breaks written as \n", re.compile(r"(?<!\\)\\n")),
}
"""Odd characters and strings: a short name, what messages call it, and what finds it."""
NOTHING = frozenset({"nan", "none", "null", "n/a", "na", "#n/a", "nil", "<na>", "nat", "-", "--", "?", "tbd", "todo"})
"""Words that often stand for a missing value, in lower case."""


def odd_kinds(texts: Iterable[str]) -> set[str]:
    """Return the short names of what is odd in some texts: those of `ODD`, and of words that stand for nothing."""
    kinds: set[str] = set()
    for text in texts:
        kinds.update(kind for kind, (_, pattern) in ODD.items() if pattern.search(text))
        if text.strip().casefold() in NOTHING:
            kinds.add("missing-value-word")
        if not unicodedata.is_normalized("NFC", text):
            kinds.add("not-nfc")
    return kinds


SAID = {kind: said for kind, (said, _) in ODD.items()} | {
    "missing-value-word": 'a word that stands for a missing value, such as "nan" or "N/A", as its whole text',
    "not-nfc": "text whose characters are not composed (not in Unicode's form NFC), which no score finds equal to NFC",
}
"""What messages call the kinds of `odd_kinds`."""
