"""Language identification by py3langid: 139 languages; the model is in its package, so nothing is downloaded."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any

log = logging.getLogger("lmtasks.metrics")

MIN_PROBABILITY = 0.9
"""A language with a lower probability is not returned: names, numbers and a few words fit many languages."""
MAX_CHARACTERS = 20_000
"""Approximate limit of the characters of many texts that are used."""
_MACROLANGUAGES = {"nb": "no", "nn": "no", "yue": "zh", "wuu": "zh", "pcm": "en"}
"""Languages that count as another, larger one."""


def identify_all(texts: Iterable[str]) -> str | None:
    """Return the language of texts taken together, in any order, or None if it is not certain."""
    ordered = sorted(texts)
    step = max(1, sum(map(len, ordered)) // MAX_CHARACTERS)
    return identify("\n".join(text[:MAX_CHARACTERS] for text in ordered[::step]))


def identify(text: str) -> str | None:
    """Return the primary subtag of a text's language, or None if it is not certain or cannot be identified."""
    identifier = _identifier()
    if identifier is None:
        return None
    text = text[: 2 * MAX_CHARACTERS]
    language, probability = identifier.classify(text)
    if probability >= MIN_PROBABILITY:
        return canonical(language) if language != "zxx" else None
    # A probability that is divided among related languages may suffice in sum; ranking takes twice as long.
    probabilities: Counter[str] = Counter()
    for language, probability in identifier.rank(text):
        probabilities[canonical(language)] += probability
    [(language, probability)] = probabilities.most_common(1)
    return language if probability >= MIN_PROBABILITY and language != "zxx" else None


def knows(language: str) -> bool:
    """Return whether a language, given by its primary subtag, can be identified."""
    identifier = _identifier()
    return identifier is not None and canonical(language) in identifier.labels


def canonical(language: str) -> str:
    """Return the language that a language counts as."""
    return _MACROLANGUAGES.get(language, language)


@cache
def _identifier() -> Any | None:
    """Return py3langid's identifier, or None if it cannot be loaded: it unpacks its model into a temporary file."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    # Any error of the package: no score depends on it, and none should be lost because of it.
    except Exception as error:
        log.warning(
            "languages cannot be identified (%s: %s): wrong_language is left out, and texts in ASCII letters that"
            " nothing states the language of are taken for English",
            type(error).__name__,
            str(error).partition("\n")[0],
        )
        return None
