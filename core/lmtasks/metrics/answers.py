"""Exact match and F1 for short answers, as SQuAD defines them; CMRC 2018 for Chinese, characters for other scripts.

If the data has questions without an answer, SQuAD 2.0's definition is used, and both parts have scores too.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import numpy as np

from lmtasks.languages import primary
from lmtasks.metrics.language import is_by_character
from lmtasks.metrics.lcs import longest_common_run
from lmtasks.metrics.means import mean_measurement, reference_count
from lmtasks.metrics.tokenize import tokens
from lmtasks.task import Measurement, Metric, Sample, ScoreSpec
from lmtasks.text_utils import is_blank

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CMRC_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_CMRC_CHARACTER = re.compile(r"([\u4e00-\u9fa5])")

Compare = Callable[[str, str], float]
"""Returns a value from 0 to 1 for a prediction and a reference."""


@dataclass(frozen=True, slots=True)
class Definition:
    """Definition of exact match and F1 for a language."""

    name: str
    """Name in signatures."""
    exact_match: Compare
    f1: Compare
    empty: Callable[[str], bool]
    """Returns whether a text counts as empty."""
    drops_empty: bool = False
    """Whether an empty reference (an article alone) is dropped if there are others."""


@dataclass(frozen=True, slots=True)
class AnswerMetric(Metric):
    """The best value over the references of an example, averaged over examples."""

    name: Literal["exact_match", "f1"]
    part: str = field(repr=False)
    """Name in the scores of the answerable and unanswerable parts, as in SQuAD 2.0's script."""

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        """Measure samples, as `Metric.measure` describes."""
        unanswerable = [not any(sample.references) for sample in samples]
        definition = _definition(
            primary(language), by_character=is_by_character(samples, language), no_answers=any(unanswerable)
        )
        compare: Compare = getattr(definition, self.name)
        values = np.array([self._value(sample, definition, compare) for sample in samples])
        refs = reference_count([len(sample.references) for sample in samples])
        signature = f"norm:{definition.name}|{refs}|agg:max|version:1"
        whole = ScoreSpec(name=self.name, signature=f"{self.name}|{signature}")
        parts = {}
        if any(unanswerable):
            for name, mask in (("HasAns", ~np.array(unanswerable)), ("NoAns", np.array(unanswerable))):
                if mask.any():
                    score_name = f"{name}_{self.part}"
                    spec = ScoreSpec(name=score_name, signature=f"{score_name}|{signature}")
                    parts[spec] = np.where(mask, values, np.nan)
        return mean_measurement({whole: values, **parts})

    @staticmethod
    def _value(sample: Sample, definition: Definition, compare: Compare) -> float:
        references = [text for text in sample.references if not (definition.drops_empty and definition.empty(text))]
        if not any(references):
            return float(definition.empty(sample.prediction))
        return max(compare(sample.prediction, text) for text in references)


EXACT_MATCH = AnswerMetric("exact_match", "exact")
TOKEN_F1 = AnswerMetric("f1", "f1")


@cache
def _definition(language: str, *, by_character: bool, no_answers: bool) -> Definition:
    if language == "zh":
        return Definition("cmrc2018", _cmrc_exact_match, _cmrc_f1, _empty_by(_without_cmrc_punctuation))
    if by_character:
        # Texts of punctuation alone are compared by it; otherwise an empty answer would count as right.
        compare = _by_tokens(lambda text: tokens(text) or text.split(), of_nothing=1.0)
        return Definition("chars2", *compare, is_blank)
    name = "squad2.0" if no_answers else "squad1.1"
    return Definition(name, *_by_tokens(squad_tokens), _empty_by(squad_tokens), drops_empty=no_answers)


def _empty_by(normalize: Callable[[str], object]) -> Callable[[str], bool]:
    """Return a function that returns whether a text is blank, or empty after normalization.

    The official scripts keep invisible characters, and count a text of these alone as an answer.
    """
    return lambda text: is_blank(text) or not normalize(text)


def squad_tokens(text: str) -> list[str]:
    """Return the words of a text that SQuAD compares.

    They are in lower case, without ASCII punctuation and English articles: Rajpurkar et al. 2016, section 6.1, in the
    order of the official evaluation script (lower, punctuation, articles, white space).
    """
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def _by_tokens(tokenize: Callable[[str], list[str]], *, of_nothing: float = 0.0) -> tuple[Compare, Compare]:
    """Return exact match and F1 of tokens; `of_nothing` is the F1 of two texts without tokens."""

    def exact_match(prediction: str, reference: str) -> float:
        return float(tokenize(prediction) == tokenize(reference))

    def f1(prediction: str, reference: str) -> float:
        predicted, expected = tokenize(prediction), tokenize(reference)
        if not predicted and not expected:
            return of_nothing
        common = (Counter(predicted) & Counter(expected)).total()
        return 2 * common / (len(predicted) + len(expected)) if common else 0.0

    return exact_match, f1


def cmrc_segments(text: str) -> list[str]:
    """Return the segments of a text that CMRC 2018's evaluation script (version 6) compares.

    They are single Chinese characters and NLTK's words of other text, without the punctuation of the script's list.
    NLTK does not split sentences first here, because that needs a model to be downloaded; only full stops between
    sentences of other text in an answer differ.
    """
    from nltk.tokenize import word_tokenize

    segments: list[str] = []
    for part in _CMRC_CHARACTER.split(_without_cmrc_punctuation(text)):
        if _CMRC_CHARACTER.fullmatch(part):
            segments.append(part)
        elif part:
            segments += word_tokenize(part, preserve_line=True)
    return segments


def _without_cmrc_punctuation(text: str) -> str:
    return "".join(character for character in text.lower().strip() if character not in _CMRC_PUNCTUATION)


def _cmrc_exact_match(prediction: str, reference: str) -> float:
    return float(_without_cmrc_punctuation(prediction) == _without_cmrc_punctuation(reference))


def _cmrc_f1(prediction: str, reference: str) -> float:
    """Return the F1 of the longest common run of segments (Cui et al. 2019, section 4.2, and the script)."""
    predicted, expected = cmrc_segments(prediction), cmrc_segments(reference)
    longest = longest_common_run(predicted, expected)
    return 2 * longest / (len(predicted) + len(expected)) if longest else 0.0
