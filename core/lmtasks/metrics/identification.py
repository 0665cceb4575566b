"""Which language a text is in, by py3langid: 139 languages, a model within the package, nothing to fetch."""

from __future__ import annotations

from functools import cache
from typing import Any

SURE = 0.9
"""Below this probability a language is not told: names, numbers and a few words fit many."""
LONGEST = 20_000
"""Characters that are looked at."""
_KIN = {"nb": "no", "nn": "no", "yue": "zh", "wuu": "zh", "pcm": "en"}
"""Languages that count as another one."""


def identify(text: str) -> str | None:
    """Return the language that a text is in, a primary subtag, or None where that is not sure."""
    language, probability = _identifier().classify(text[:LONGEST])
    return canonical(language) if probability >= SURE and language != "zxx" else None


def knows(language: str) -> bool:
    """Tell whether a language, by its primary subtag, is one that can be identified."""
    return canonical(language) in _identifier().labels


def canonical(language: str) -> str:
    """Return the language that a language counts as."""
    return _KIN.get(language, language)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
