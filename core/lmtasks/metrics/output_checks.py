"""Checks of outputs for any task: empty, unfinished, repetitive, copied, in the wrong language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import regex

from lmtasks.languages import primary
from lmtasks.metrics.language import LETTERS
from lmtasks.metrics.language_id import canonical, identify, knows
from lmtasks.metrics.means import mean_measurement
from lmtasks.metrics.tokenize import tokens
from lmtasks.task import Measurement, Sample, ScoreSpec
from lmtasks.text_utils import is_blank

if TYPE_CHECKING:
    from lmtasks.task.score import FloatArray

LOOP_GRAM, LOOP_TOKENS, LOOP_SHARE = 4, 12, 1 / 3
"""An output of at least so many tokens is repetitive if this share of its 4-grams occurred in it before: seq-rep-4 of
Welleck et al. 2020, "Neural text generation with unlikelihood training". Ordinary text stays under a tenth."""
COPY_RUN, COPY_TOKENS, COPY_SHARE = 8, 16, 0.8
"""An output of at least so many tokens is copied if this share of them belongs to runs of 8 that an input has too
(fragment coverage of Grusky et al. 2018, "Newsroom", without short fragments), and no reference is copied. A shorter
one is copied if it is the whole input."""
LETTERS_PER_WORD = 4
"""Factor of the token counts above for Thai, Burmese, Tibetan and similar languages, which have a token for each
letter because no spaces separate their words. Half of the 4-grams of letters in an ordinary text of 6,000 letters
occurred before, in these languages as in English without its spaces."""
_LETTER = regex.compile(rf"[{''.join(LETTERS.values())}]")

VERSIONS = {"empty": 2, "repeating": 2, "copying": 2}
"""Versions of checks that were measured in another way before; the others have version 1."""


def measure_output_checks(samples: Sequence[Sample], languages: Mapping[str, str | None]) -> Measurement:
    """Measure outputs; shares are percentages of the samples for which a check can be made.

    Args:
        samples: at least one; with or without references.
        languages: language that each output should have, by the id of its sample.

    Returns:
        The same scores for all samples, so that any two runs can be paired; a check that cannot be made is NaN.
    """
    tokenized = [_Tokens.of(sample) for sample in samples]
    shares: dict[str, list[float]] = {
        "empty": [float(is_empty(sample)) for sample in samples],
        "unfinished": [
            np.nan if sample.finish_reason == "unknown" else float(sample.finish_reason == "length")
            for sample in samples
        ],
        "repeating": [float(_is_repetitive(sample.prediction)) for sample in tokenized],
        "copying": [float(_copies_input_only(sample)) if sample.inputs else np.nan for sample in tokenized],
        "wrong_language": [_in_wrong_language(sample.prediction, languages[sample.id]) for sample in samples],
    }
    means = mean_measurement(
        {
            ScoreSpec(name=name, signature=f"{name}|version:{VERSIONS.get(name, 1)}", higher_is_better=False): values
            for name, values in shares.items()
        }
    )
    lengths = np.array([sample.lengths() for sample in tokenized])
    ratio = ScoreSpec(
        name="length_ratio",
        signature="length_ratio|tok:lmtasks2|version:1",
        unit="1 is equal",
        higher_is_better=None,
        n=sum(bool(sample.references) for sample in samples),
    )

    def combine(sums: FloatArray) -> FloatArray:
        produced, expected = sums[..., -2], sums[..., -1]
        # Without expected tokens the ratio is not defined.
        ratios = np.divide(produced, expected, out=np.full_like(expected, np.nan), where=expected > 0)
        return np.concatenate([means.combine(sums[..., :-2]), ratios[..., None]], axis=-1)

    return Measurement(statistics=np.hstack([means.statistics, lengths]), specs=(*means.specs, ratio), combine=combine)


def is_empty(sample: Sample) -> bool:
    """Return whether an output is blank and no reference is; otherwise a blank output may be right."""
    return is_blank(sample.prediction) and not any(is_blank(text) for text in sample.references)


def is_repeating(text: str) -> bool:
    """Return whether a text is repetitive."""
    return _is_repetitive(tokens(text))


def is_copying(sample: Sample) -> bool:
    """Return whether an output is mostly a copy of an input, and no reference is."""
    return _copies_input_only(_Tokens.of(sample))


@dataclass(frozen=True, slots=True)
class _Tokens:
    """The tokens of a sample's texts."""

    prediction: list[str]
    references: list[list[str]]
    inputs: list[list[str]]

    @classmethod
    def of(cls, sample: Sample) -> _Tokens:
        return cls(
            tokens(sample.prediction),
            [tokens(text) for text in sample.references],
            [tokens(text) for text in sample.inputs.values()],
        )

    def lengths(self) -> tuple[float, float]:
        """Return the length of the output and the mean length of the references; both 0 without references."""
        if not self.references:
            return 0, 0
        return len(self.prediction), sum(map(len, self.references)) / len(self.references)


def _tokens_per_word(words: Sequence[str]) -> int:
    letters = sum(_LETTER.match(word) is not None for word in words)
    return LETTERS_PER_WORD if 2 * letters > len(words) else 1


def _is_repetitive(words: Sequence[str]) -> bool:
    per_word = _tokens_per_word(words)
    if len(words) < LOOP_TOKENS * per_word:
        return False
    grams = Counter(zip(*(words[start:] for start in range(LOOP_GRAM * per_word)), strict=False))
    return 1 - len(grams) / grams.total() >= LOOP_SHARE


def _copies_input_only(sample: _Tokens) -> bool:
    """Return whether the output copies an input and the references do not; some right answers are copies."""
    if not sample.prediction:
        return False
    for source in sample.inputs:
        if _copies(sample.prediction, source):
            return not any(_copies(words, source) for words in sample.references)
    return False


def _copies(words: Sequence[str], source: Sequence[str]) -> bool:
    per_word = _tokens_per_word(words)
    run = COPY_RUN * per_word
    if words == source or len(words) < COPY_TOKENS * per_word:
        return words == source
    runs = {tuple(source[start : start + run]) for start in range(len(source) - run + 1)}
    covered = {
        start + offset
        for start in range(len(words) - run + 1)
        if tuple(words[start : start + run]) in runs
        for offset in range(run)
    }
    return len(covered) >= COPY_SHARE * len(words)


def _in_wrong_language(text: str, expected: str | None) -> float:
    """Return 1 or 0, or NaN if the expected language cannot be identified."""
    language = primary(expected)
    return float(identify(text) not in (None, canonical(language))) if knows(language) else np.nan
