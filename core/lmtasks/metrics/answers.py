"""Exact match and token F1 for short answers, normalised as by SQuAD."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmtasks.languages import primary
from lmtasks.metrics.language import is_unspaced
from lmtasks.metrics.means import mean_measurement, reference_count
from lmtasks.metrics.text import tokens
from lmtasks.task import Measurement, Sample, ScoreKind

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_tokens(text: str) -> list[str]:
    """Return the words of a text as SQuAD compares them.

    Lower case, without ASCII punctuation and English articles: Rajpurkar et al. 2016, section 6.1, in the order
    of the official evaluation script (lower, punctuation, articles, white space).
    """
    return _ARTICLES.sub(" ", " ".join(words_without_punctuation(text))).split()


def words_without_punctuation(text: str) -> list[str]:
    """Return the words of a text in lower case, without ASCII punctuation."""
    return text.lower().translate(_NO_PUNCTUATION).split()


def exact_match(prediction: list[str], reference: list[str]) -> float:
    """Return 1 for the same tokens, else 0."""
    return float(prediction == reference)


def token_f1(prediction: list[str], reference: list[str]) -> float:
    """Return the harmonic mean of precision and recall of tokens, 0 to 1; of two empty answers 1."""
    if not prediction or not reference:
        return float(prediction == reference)
    common = (Counter(prediction) & Counter(reference)).total()
    return 2 * common / (len(prediction) + len(reference))


@dataclass(frozen=True, slots=True)
class AnswerMetric:
    """The best over an example's references, averaged over examples; "" as a reference wants an empty answer."""

    name: str
    compare: Callable[[list[str], list[str]], float]

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        """Measure as the protocol says."""
        by_character = is_unspaced(primary(language))
        normalise = tokens if by_character else squad_tokens
        values = [
            max(self._compare(sample.prediction, text, normalise) for text in sample.references) for sample in samples
        ]
        refs = reference_count([len(sample.references) for sample in samples])
        signature = f"{self.name}|norm:{'chars1' if by_character else 'squad1.1'}|{refs}|agg:max|version:1"
        return mean_measurement({ScoreKind(name=self.name, signature=signature): values})

    def _compare(self, prediction: str, reference: str, normalise: Callable[[str], list[str]]) -> float:
        # An article or a mark alone is an answer ("vitamin A"): an empty prediction must not pass for it.
        for way in (normalise, words_without_punctuation, str.split):
            if wanted := way(reference):
                return self.compare(way(prediction), wanted)
        return self.compare(normalise(prediction), [])


EXACT_MATCH = AnswerMetric("exact_match", exact_match)
TOKEN_F1 = AnswerMetric("f1", token_f1)
