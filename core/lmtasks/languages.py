"""Language tags: the primary subtag, and which tags state a language."""

from __future__ import annotations

import re

CODES = {
    "zho": "zh", "chi": "zh", "cmn": "zh", "yue": "zh", "wuu": "zh", "lzh": "zh", "nan": "zh", "hak": "zh", "gan": "zh",
    "jpn": "ja", "tha": "th", "lao": "lo", "mya": "my", "bur": "my", "khm": "km", "kor": "ko", "eng": "en", "deu": "de",
    "ger": "de", "fra": "fr", "fre": "fr", "spa": "es", "por": "pt", "ita": "it", "rus": "ru", "arb": "ar", "ara": "ar",
}  # fmt: skip
"""Three-letter codes of languages that have a two-letter one; the Chinese languages are written like zh."""
_TAG = re.compile(r"(?!(?:und|mul|mis|zxx)\b)[A-Za-z]{2,3}([-_]\w+)*|x-\w+|und-(?!Han|Jpan|Hrkt)[A-Z][a-z]{3}")


def primary(language: str | None) -> str:
    """Return the primary subtag of a language tag: "zh" for "zh-Hant-TW" and "zho_Hans", "und" for None."""
    subtag = re.split("[-_]", language)[0].lower() if language else "und"
    return CODES.get(subtag, subtag)


def states_language(tag: str | None) -> bool:
    """Return whether a text is a language tag; a column "language" may hold others, such as "Chinese" or "und"."""
    return tag is not None and _TAG.fullmatch(tag) is not None
