"""Tokens and sentences of texts in every language; nothing is downloaded."""

from __future__ import annotations

import unicodedata

import regex

from lmtasks.metrics.language import UNSPACED

_UNSPACED = "".join(UNSPACED.values())
_JOINERS = r"\u200c\u200d"
_IN_WORDS = rf"[\p{{L}}\p{{M}}\p{{N}}--[{_UNSPACED}]]"
# The joiners of Persian and Hindi stand within words.
_TOKEN = regex.compile(
    rf"(?V1)[[{_UNSPACED}]&&[\p{{L}}\p{{M}}\p{{N}}]]"
    rf"|[[\p{{L}}\p{{N}}]--[{_UNSPACED}]](?:{_IN_WORDS}|[{_JOINERS}]++(?={_IN_WORDS}))*+"
)
# Invisible characters neither separate words nor belong to them: soft hyphens, marks of direction, variation
# selectors, fillers. The zero-width space neither: where it separates words, in Khmer or Thai, each character is a
# token without it.
_INVISIBLE = regex.compile(rf"(?V1)[\p{{Default_Ignorable_Code_Point}}--[{_JOINERS}]]+")
# Joiners mean nothing in these scripts: they are hints against a ligature, or remains of a web page.
_WITHOUT_JOINERS = (
    r"\p{Latin}\p{Greek}\p{Cyrillic}\p{Armenian}\p{Georgian}\p{Hebrew}\p{Ethiopic}\p{Hangul}\p{Han}\p{Hiragana}"
    r"\p{Katakana}\p{Nd}"
)
_STRAY_JOINERS = regex.compile(rf"[{_WITHOUT_JOINERS}]\p{{M}}*+[{_JOINERS}][{_JOINERS}\p{{M}}]*+")

_OPENING = r"\"'“‘„«»(\["
_CLOSING = r"\"'”’“«»)\]」』）》】"
# Without the scripts that were added to `tokens` later: sentence ends are part of the signature of every language.
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
    """Return the form in which tokens are compared: normal width (NFKC), lower case, no invisible characters.

    The result is its own normal form. Lower case comes second, for letters that only NFKC shows to be capitals
    ("𝐓"), and NFKC once more for marks that lower case leaves in another order ("İ" with a mark below).
    """
    if text.isascii():
        return text.lower()
    wide = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
    wide = _STRAY_JOINERS.sub(lambda match: match[0].replace("\u200c", "").replace("\u200d", ""), wide)
    return unicodedata.normalize("NFKC", wide.lower())


def tokens(text: str) -> list[str]:
    """Return the tokens of a text in any script, in the form of `normal`, without punctuation.

    A token is a character of a script without spaces, or a run of other letters, their marks, and digits.
    """
    return list(_TOKEN.findall(normal(text)))


def is_word(text: str) -> bool:
    """Return whether a text has a letter or digit of any script."""
    return _TOKEN.search(text) is not None


def sentences(text: str) -> list[str]:
    """Return the sentences of a text: its lines, split after sentence ends, without surrounding white space."""
    parts = []
    for line in text.splitlines():
        start = 0
        for end in _SENTENCE_END.finditer(line):
            parts.append(line[start : end.end()])
            start = end.end()
        parts.append(line[start:])
    return [part.strip() for part in parts if part.strip()]
