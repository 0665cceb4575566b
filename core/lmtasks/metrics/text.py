"""Texts as tokens and sentences, in every language, without anything to download."""

from __future__ import annotations

import unicodedata

import regex

from lmtasks.metrics.language import UNSPACED

_UNSPACED = "".join(UNSPACED.values())
# The joiners of Persian and Hindi (U+200C, U+200D) stand within words.
_TOKEN = regex.compile(
    rf"(?V1)[[{_UNSPACED}]&&[\p{{L}}\p{{M}}\p{{N}}]]"
    rf"|[[\p{{L}}\p{{N}}]--[{_UNSPACED}]][[\p{{L}}\p{{M}}\p{{N}}\u200c\u200d]--[{_UNSPACED}]]*+"
)

_OPENING = r"\"'“‘„«»(\["
_CLOSING = r"\"'”’“«»)\]」』）》】"
# Without the scripts that tokens learnt of later: where sentences end is part of the signature of every language.
_UNSPACED_FIRST = "".join(UNSPACED[tag] for tag in ("zh", "ja", "th", "lo", "my", "km"))
_SENTENCE_END = regex.compile(
    # Chinese and Japanese marks end a sentence wherever they stand, but within a quotation; so do "!", "?" and
    # dots of omission that a character of such a script follows.
    # A run of marks is tried from its first one alone (or from the end of the last match): a long run would otherwise
    # be read once for each of its marks.
    rf"(?:\G|(?<![。！？!?…]))"
    rf"(?:(?=[!?…]*+[。！？])[。！？!?…]++|[!?…]++(?=[{_UNSPACED_FIRST}]))(?![{_CLOSING}])\s*+"
    # Other marks need space behind them, and something else than a small letter behind that.
    rf"|(?:\G|(?<![.!?…]))[.!?…]++(?:[{_CLOSING}]|\s»)*+\s++(?=[{_OPENING}]*+[^\p{{Ll}}\s])"
)  # fmt: skip


def normal(text: str) -> str:
    """Return a text in lower case and normal width (NFKC), as tokens are compared."""
    return unicodedata.normalize("NFKC", text.lower())


def tokens(text: str) -> list[str]:
    """Return the tokens of a text in any script, normal in case and width, without punctuation.

    A character of an unspaced script is a token, and so is a run of other letters, their marks, and digits.
    """
    return list(_TOKEN.findall(normal(text)))


def is_word(text: str) -> bool:
    """Tell whether a text holds a letter or digit of any script."""
    return _TOKEN.search(text) is not None


def sentences(text: str) -> list[str]:
    """Return the sentences of a text: its lines, broken behind sentence ends, without the space around them."""
    parts = []
    for line in text.splitlines():
        start = 0
        for end in _SENTENCE_END.finditer(line):
            parts.append(line[start : end.end()])
            start = end.end()
        parts.append(line[start:])
    return [part.strip() for part in parts if part.strip()]
