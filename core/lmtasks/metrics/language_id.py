"""Which language a text is in, by py3langid: 139 languages, a model within the package, nothing to fetch."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any

log = logging.getLogger("lmtasks.metrics")

SURE = 0.9
"""Below this probability a language is not told: names, numbers and a few words fit many."""
LONGEST = 20_000
"""Characters of many texts that are looked at, or little more."""
_KIN = {"nb": "no", "nn": "no", "yue": "zh", "wuu": "zh", "pcm": "en"}
"""Languages that count as another one."""


def identify_all(texts: Iterable[str]) -> str | None:
    """Return the language that texts are in together, whatever their order, or None where that is not sure."""
    ordered = sorted(texts)
    step = max(1, sum(map(len, ordered)) // LONGEST)
    return identify("\n".join(text[:LONGEST] for text in ordered[::step]))


def identify(text: str) -> str | None:
    """Return the language that a text is in, a primary subtag, or None where that is not sure or not possible."""
    identifier = _identifier()
    if identifier is None:
        return None
    text = text[: 2 * LONGEST]
    language, probability = identifier.classify(text)
    if probability >= SURE:
        return canonical(language) if language != "zxx" else None
    # What is divided among kin may be sure of all of them together; ranking takes twice as long.
    probabilities: Counter[str] = Counter()
    for language, probability in identifier.rank(text):
        probabilities[canonical(language)] += probability
    [(language, probability)] = probabilities.most_common(1)
    return language if probability >= SURE and language != "zxx" else None


def knows(language: str) -> bool:
    """Tell whether a language, by its primary subtag, is one that can be identified."""
    identifier = _identifier()
    return identifier is not None and canonical(language) in identifier.labels


def canonical(language: str) -> str:
    """Return the language that a language counts as."""
    return _KIN.get(language, language)


@cache
def _identifier() -> Any | None:
    """Return py3langid's identifier, or None where it cannot be loaded: it unpacks its model into a temporary file."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    # Whatever the package raises: what it would tell is a doubt, and no score is worth losing for it.
    except Exception as error:
        log.warning(
            "languages cannot be identified (%s: %s): wrong_language is left out, and texts in ASCII letters that"
            " nothing states the language of are taken for English",
            type(error).__name__,
            str(error).partition("\n")[0],
        )
        return None
