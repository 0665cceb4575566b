"""Text as characters: which are visible, which look the same, and which UTF-8 has."""

from __future__ import annotations

import re
import unicodedata

_DEFAULT_IGNORABLE = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Unicode's Default_Ignorable_Code_Point, unchanged since Unicode 5.1 but for U+180F: zero-width and bidi marks, soft
hyphens, variation selectors, Hangul fillers, tags."""
# Invisible too: control characters, braille without dots, a note head of nothing, marks of annotations and hieroglyphs.
_HIDDEN = rf"\x00-\x1f\x7f-\x9f\u2800\ufff9-\ufffb\U00013430-\U0001343f\U0001d159{_DEFAULT_IGNORABLE}"
_VISIBLE = re.compile(rf"[^\s{_HIDDEN}]")
# Some control characters are white space: tabs, line ends.
_INVISIBLE = re.compile(rf"(?:(?!\s)[{_HIDDEN}])+")


def is_blank(text: str) -> bool:
    """Return whether a text shows nothing: it is empty, or holds white space and invisible characters alone.

    Combining marks and emoji are visible, and so are the Arabic signs that Unicode counts among format characters.
    """
    return _VISIBLE.search(text) is None


def folded(text: str) -> str:
    """Return what two texts share that a reader would take for the same.

    Invisible characters, width and other compatible forms (NFKC), composition, case, and how much space stands between
    words and around them, do not count.
    """
    wide = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
    # Case folding leaves some marks in another order.
    return unicodedata.normalize("NFKC", " ".join(wide.casefold().split()))


def as_utf8(text: str) -> str:
    """Return text whose lone halves of surrogate pairs are question marks.

    JSON and Python can escape them, but UTF-8 cannot hold them, and no tokenizer takes them.
    """
    return text.encode("utf-8", "replace").decode("utf-8")
