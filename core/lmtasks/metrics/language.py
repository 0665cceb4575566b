"""The language that references are scored in: as stated, or else as their script tells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from lmtasks.task import Example, Sample

UNSPACED = frozenset({"zh", "ja", "th", "lo", "km", "my"})
"""Languages written without spaces between words: their texts are compared character by character."""

SCRIPTS = {
    "zh": r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]",
    "ja": r"[\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f]",
    "ko": r"[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]",
    "th": r"[\u0e00-\u0e7f]",
    "lo": r"[\u0e80-\u0eff]",
    "my": r"[\u1000-\u109f]",
    "km": r"[\u1780-\u17ff]",
    "und-Cyrl": r"[\u0400-\u052f]+",
    "und-Grek": r"[\u0370-\u03ff]+",
    "und-Arab": r"[\u0600-\u06ff\u0750-\u077f]+",
    "und-Hebr": r"[\u0590-\u05ff]+",
    "und-Deva": r"[\u0900-\u097f]+",
    "und-Latn": r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]+",
}
"""What is counted for each script: characters of unspaced ones, words of spaced ones, so that they weigh alike."""
_PATTERNS = {tag: re.compile(pattern) for tag, pattern in SCRIPTS.items()}
_NON_ASCII_LATIN = re.compile(r"[\u00c0-\u024f\u1e00-\u1eff]")
NOT_ENGLISH = 0.005
"""English has less than this share of accented letters among its letters; German, French or Polish have more."""


def primary(language: str | None) -> str:
    """Return the primary subtag of a BCP 47 tag in lower case: "zh" for "zh-Hant-TW", "und" for None."""
    return re.split("[-_]", language)[0].lower() if language else "und"


def language_of(item: Example | Sample) -> str | None:
    """Read the language of references from their script.

    Where the references have no letters, or only Latin ones among inputs in another script (a name in a Chinese
    text), the inputs tell.

    Returns:
        A BCP 47 tag; "und-" and the script where it serves many languages; None for text without any letter.
    """
    own = _script(item.references)
    around = _script(item.inputs.values())
    if own is None or (own == "und-Latn" and around is not None):
        return around
    return "ja" if own == "zh" and around == "ja" else own


def group_by_language(samples: Sequence[Sample]) -> dict[tuple[str | None, bool], list[Sample]]:
    """Divide samples by the language of their references: the stated one, or else what `language_of` reads.

    Returns:
        Samples by language and whether it was stated. Text in Latin letters alone is "en" if accented letters
        are as rare in the group as in English, else "und-Latn"; None stands for text without any letter.
    """
    groups: dict[tuple[str | None, bool], list[Sample]] = {}
    for sample in samples:
        key = (sample.language, True) if sample.language else (language_of(sample), False)
        groups.setdefault(key, []).append(sample)
    latin = groups.pop(("und-Latn", False), None)
    if latin:
        tag = "en" if _looks_english(text for sample in latin for text in sample.references) else "und-Latn"
        groups[tag, False] = latin
    letterless = groups.pop((None, False), None)
    if letterless:
        # Numbers alone, in a set whose other samples have letters: they belong with the majority.
        counts = {key: len(members) for key, members in groups.items()}
        home = max(counts, key=lambda key: counts[key]) if counts else (None, False)
        groups.setdefault(home, []).extend(letterless)
    return {key: sorted(members, key=lambda sample: sample.index) for key, members in groups.items()}


def _script(texts: Iterable[str]) -> str | None:
    counts: Counter[str] = Counter()
    for text in texts:
        for tag, pattern in _PATTERNS.items():
            counts[tag] += len(pattern.findall(text))
    if not counts.total():
        return None
    if counts["ja"] > 0.1 * (counts["ja"] + counts["zh"]):
        counts["ja"] += counts["zh"]
    return counts.most_common(1)[0][0]


def _looks_english(texts: Iterable[str]) -> bool:
    letters = accented = 0
    for text in texts:
        letters += sum(map(len, _PATTERNS["und-Latn"].findall(text)))
        accented += len(_NON_ASCII_LATIN.findall(text))
    return accented <= NOT_ENGLISH * letters
