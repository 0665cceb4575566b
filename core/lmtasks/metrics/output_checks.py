"""What can be wrong with outputs whatever the task: empty, unfinished, looping, copied, in another language."""

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
"""An output of so many tokens loops when this share of its 4-grams have stood in it before: seq-rep-4 of Welleck et
al. 2020, "Neural text generation with unlikelihood training". Ordinary text stays under a tenth."""
COPY_RUN, COPY_TOKENS, COPY_SHARE = 8, 16, 0.8
"""An output of so many tokens is copied when this share of them stand in runs of 8 that an input has too (fragment
coverage of Grusky et al. 2018, "Newsroom", without short fragments), and of no reference so much. A shorter one when
it is the whole input."""
LETTERS_PER_WORD = 4
"""Thai, Burmese, Tibetan and their like have a token for each letter, as no spaces part their words: all counts of
tokens above are of so many times as many. Half of the 4-grams of letters in an ordinary text of 6,000 have been there
before, in these languages and in English without its spaces."""
_LETTER = regex.compile(rf"[{''.join(LETTERS.values())}]")

VERSIONS = {"empty": 2, "repeating": 2, "copying": 2}
"""Of kinds that once were measured in another way."""


def measure_output_checks(samples: Sequence[Sample], languages: Mapping[str, str | None]) -> Measurement:
    """Measure outputs; shares are percentages of all samples that a thing can be told of.

    Args:
        samples: at least one; those without references too.
        languages: what the outputs should be in, by the sample's id.

    Returns:
        The same kinds for all samples, so that any two runs can be paired; what cannot be told of any is NaN.
    """
    read = [_Read.of(sample) for sample in samples]
    shares: dict[str, list[float]] = {
        "empty": [float(is_empty(sample)) for sample in samples],
        "unfinished": [
            np.nan if sample.finish == "unknown" else float(sample.finish == "length") for sample in samples
        ],
        "repeating": [float(_loops(words.prediction)) for words in read],
        "copying": [float(_copies_unasked(words)) if words.inputs else np.nan for words in read],
        "wrong_language": [_in_wrong_language(sample.prediction, languages[sample.id]) for sample in samples],
    }
    means = mean_measurement(
        {
            ScoreSpec(name=name, signature=f"{name}|version:{VERSIONS.get(name, 1)}", higher_is_better=False): values
            for name, values in shares.items()
        }
    )
    lengths = np.array([words.lengths() for words in read])
    ratio = ScoreSpec(
        name="length_ratio",
        signature="length_ratio|tok:lmtasks2|version:1",
        unit="1 is equal",
        higher_is_better=None,
        n=sum(bool(sample.references) for sample in samples),
    )

    def combine(sums: FloatArray) -> FloatArray:
        produced, wanted = sums[..., -2], sums[..., -1]
        # Where nothing was wanted, no length is right or wrong.
        ratios = np.divide(produced, wanted, out=np.full_like(wanted, np.nan), where=wanted > 0)
        return np.concatenate([means.combine(sums[..., :-2]), ratios[..., None]], axis=-1)

    return Measurement(statistics=np.hstack([means.statistics, lengths]), specs=(*means.specs, ratio), combine=combine)


def is_empty(sample: Sample) -> bool:
    """Return whether an output shows nothing, and none of its references does: there, that is the right answer."""
    return is_blank(sample.prediction) and not any(is_blank(text) for text in sample.references)


def is_repeating(text: str) -> bool:
    """Tell whether a text goes round in a loop."""
    return _loops(tokens(text))


def is_copying(sample: Sample) -> bool:
    """Tell whether an output is mostly a copy of an input, and no reference is."""
    return _copies_unasked(_Read.of(sample))


@dataclass(frozen=True, slots=True)
class _Read:
    """The tokens of a sample's texts."""

    prediction: list[str]
    references: list[list[str]]
    inputs: list[list[str]]

    @classmethod
    def of(cls, sample: Sample) -> _Read:
        return cls(
            tokens(sample.prediction),
            [tokens(text) for text in sample.references],
            [tokens(text) for text in sample.inputs.values()],
        )

    def lengths(self) -> tuple[float, float]:
        """Return the length of the output, and of the references on average; both 0 where there are none."""
        if not self.references:
            return 0, 0
        return len(self.prediction), sum(map(len, self.references)) / len(self.references)


def _tokens_per_word(words: Sequence[str]) -> int:
    letters = sum(_LETTER.match(word) is not None for word in words)
    return LETTERS_PER_WORD if 2 * letters > len(words) else 1


def _loops(words: Sequence[str]) -> bool:
    per_word = _tokens_per_word(words)
    if len(words) < LOOP_TOKENS * per_word:
        return False
    grams = Counter(zip(*(words[at:] for at in range(LOOP_GRAM * per_word)), strict=False))
    return 1 - len(grams) / grams.total() >= LOOP_SHARE


def _copies_unasked(read: _Read) -> bool:
    """Tell whether the output copies an input where the references do not: answers from a text are copies of it."""
    if not read.prediction:
        return False
    for source in read.inputs:
        if _copies(read.prediction, source):
            return not any(_copies(words, source) for words in read.references)
    return False


def _copies(words: Sequence[str], source: Sequence[str]) -> bool:
    per_word = _tokens_per_word(words)
    run = COPY_RUN * per_word
    if words == source or len(words) < COPY_TOKENS * per_word:
        return words == source
    runs = {tuple(source[at : at + run]) for at in range(len(source) - run + 1)}
    covered = {
        at + step for at in range(len(words) - run + 1) if tuple(words[at : at + run]) in runs for step in range(run)
    }
    return len(covered) >= COPY_SHARE * len(words)


def _in_wrong_language(text: str, wanted: str | None) -> float:
    """Return 1 or 0, or NaN where the language that is wanted cannot be told."""
    language = primary(wanted)
    return float(identify(text) not in (None, canonical(language))) if knows(language) else np.nan
