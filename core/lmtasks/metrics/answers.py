"""Exact match and F1 for short answers: by SQuAD's definitions, CMRC 2018's for Chinese, by characters elsewhere.

Where the data has questions without an answer, SQuAD 2.0's hold, and both parts are scored for themselves too.
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
"""From prediction and reference to 0 to 1."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What exact match and F1 mean in a language."""

    name: str
    """In signatures."""
    exact_match: Compare
    f1: Compare
    empty: Callable[[str], bool]
    """Whether a text says nothing at all, as the definition sees it."""
    drops_empty: bool = False
    """Whether a reference that says nothing (an article alone) counts only where there is no other."""


@dataclass(frozen=True, slots=True)
class AnswerMetric(Metric):
    """The best over an example's references, averaged over examples."""

    name: Literal["exact_match", "f1"]
    part: str = field(repr=False)
    """What the answerable and unanswerable parts call it, as SQuAD 2.0's own script does."""

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
            for name, inside in (("HasAns", ~np.array(unanswerable)), ("NoAns", np.array(unanswerable))):
                if inside.any():
                    label = f"{name}_{self.part}"
                    kind = ScoreSpec(name=label, signature=f"{label}|{signature}")
                    parts[kind] = np.where(inside, values, np.nan)
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
        # A text of marks alone is compared with its marks, or an empty answer would count as right.
        compare = _by_tokens(lambda text: tokens(text) or text.split(), of_nothing=1.0)
        return Definition("chars2", *compare, is_blank)
    name = "squad2.0" if no_answers else "squad1.1"
    return Definition(name, *_by_tokens(squad_tokens), _empty_by(squad_tokens), drops_empty=no_answers)


def _empty_by(normalize: Callable[[str], object]) -> Callable[[str], bool]:
    """Return what tells whether a text shows nothing, or normalising leaves nothing of it.

    The official scripts keep invisible characters, and would count a text of these alone as an answer.
    """
    return lambda text: is_blank(text) or not normalize(text)


def squad_tokens(text: str) -> list[str]:
    """Return the words of a text as SQuAD compares them.

    Lower case, without ASCII punctuation and English articles: Rajpurkar et al. 2016, section 6.1, in the order
    of the official evaluation script (lower, punctuation, articles, white space).
    """
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def _by_tokens(tokenize: Callable[[str], list[str]], *, of_nothing: float = 0.0) -> tuple[Compare, Compare]:
    """Return exact match and F1 of tokens; `of_nothing` is the F1 of two texts without any."""

    def exact_match(prediction: str, reference: str) -> float:
        return float(tokenize(prediction) == tokenize(reference))

    def f1(prediction: str, reference: str) -> float:
        predicted, wanted = tokenize(prediction), tokenize(reference)
        if not predicted and not wanted:
            return of_nothing
        common = (Counter(predicted) & Counter(wanted)).total()
        return 2 * common / (len(predicted) + len(wanted)) if common else 0.0

    return exact_match, f1


def cmrc_segments(text: str) -> list[str]:
    """Return the segments of a text as CMRC 2018's evaluation script (version 6) compares them.

    Chinese characters one by one, other text as NLTK's words, without the punctuation of the script's list.
    NLTK is told not to look for sentences first: that needs a model to be downloaded, and changes a full stop
    between sentences of other text within an answer alone.
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
    """Return the F1 of the longest run of segments that both have (Cui et al. 2019, section 4.2, and the script)."""
    predicted, wanted = cmrc_segments(prediction), cmrc_segments(reference)
    longest = longest_common_run(predicted, wanted)
    return 2 * longest / (len(predicted) + len(wanted)) if longest else 0.0
