"""Text helpers: blank text, folding for comparison, and text that UTF-8 can hold."""

from __future__ import annotations

import re
import unicodedata

_DEFAULT_IGNORABLE = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Unicode's Default_Ignorable_Code_Point, unchanged since Unicode 5.1 except for U+180F: zero-width and bidi marks,
soft hyphens, variation selectors, Hangul fillers, tags."""
# Also invisible: control characters, blank braille, the null notehead, marks of annotations and hieroglyphs.
_HIDDEN = rf"\x00-\x1f\x7f-\x9f\u2800\ufff9-\ufffb\U00013430-\U0001343f\U0001d159{_DEFAULT_IGNORABLE}"
_VISIBLE = re.compile(rf"[^\s{_HIDDEN}]")
# Some control characters are white space: tabs, line ends.
_INVISIBLE = re.compile(rf"(?:(?!\s)[{_HIDDEN}])+")


def is_blank(text: str) -> bool:
    """Return whether a text is empty or consists of white space and invisible characters only.

    Combining marks and emoji are visible, and so are the Arabic signs that Unicode classifies as format characters.
    """
    return _VISIBLE.search(text) is None


def folded(text: str) -> str:
    """Return a normal form that is equal for texts that a reader would take for the same.

    Invisible characters, width and other compatibility forms (NFKC), composition, case, and the amount of space around
    words are ignored.
    """
    visible = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
    # Case folding leaves some combining marks in another order.
    return unicodedata.normalize("NFKC", " ".join(visible.casefold().split()))


def as_utf8(text: str) -> str:
    """Return a text with question marks in place of lone surrogates.

    JSON and Python can escape lone surrogates, but UTF-8 cannot hold them and no tokenizer accepts them.
    """
    return text.encode("utf-8", "replace").decode("utf-8")
