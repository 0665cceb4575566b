"""BLEU, chrF, chrF++ and TER, by sacrebleu."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmtasks.compat.scores import corpus_statistics, score_from_statistics
from lmtasks.languages import primary
from lmtasks.metrics.language import is_by_character
from lmtasks.metrics.packages import require
from lmtasks.task import Measurement, Sample, ScoreSpec

if TYPE_CHECKING:
    from lmtasks.task.score import FloatArray

BLEU_TOKENIZERS = {"zh": "zh", "ja": "char", "ko": "char"}
"""By language. Others take "char" where their script has no spaces, else "13a", which is made for spaces."""
MECAB = {"ja-mecab": ("ja", "MeCab", "'sacrebleu[ja]'"), "ko-mecab": ("ko", "mecab_ko", "'sacrebleu[ko]'")}
"""Tokenizers into words: their language, the module they need, and what installs it."""

ASIAN_TER = frozenset({"zh", "ja"})
"""Languages that tercom's own support for Asian characters serves; it takes words for what stands between spaces."""


@dataclass(frozen=True, slots=True)
class SacrebleuMetric:
    """A metric of sacrebleu, with its own statistics and signature."""

    name: str
    label: str
    """What scores call it."""
    make: Callable[[str, bool], Any]
    """From the primary language subtag, and whether texts are compared by characters, to the metric of sacrebleu."""
    higher_is_better: bool = True
    needs: tuple[str, str] | None = None
    """A module that has to be installed, and what installs it."""
    spread: bool = False
    """Whether characters are set apart by spaces where texts are compared by them, for a metric that splits there."""

    def check(self) -> None:
        """See that what this needs is installed.

        Raises:
            MetricError: it is not.
        """
        if self.needs:
            require(self.needs[0], self.name, self.needs[1])

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        """Measure as the protocol says."""
        by_character = is_by_character(samples, language)
        metric = self.make(primary(language), by_character)
        spread = self.spread and by_character and primary(language) not in ASIAN_TER
        prepare = " ".join if spread else str
        statistics = corpus_statistics(
            metric,
            [prepare(sample.prediction) for sample in samples],
            transposed([[prepare(text) for text in sample.references] for sample in samples]),
        )

        def combine(sums: FloatArray) -> FloatArray:
            rows = sums.reshape(-1, sums.shape[-1])
            values = [score_from_statistics(metric, row) for row in rows.tolist()]
            return np.array(values).reshape(*sums.shape[:-1], 1)

        kind = ScoreSpec(
            name=self.label,
            signature=f"{self.label}|{metric.get_signature().format()}{'|pretok:char' if spread else ''}",
            higher_is_better=self.higher_is_better,
        )
        return Measurement(statistics=np.array(statistics, dtype=np.float64), specs=(kind,), combine=combine)


def transposed(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """Turn references per example into sacrebleu's streams: one list per reference number, over all examples.

    Examples with fewer references than others are padded by None, which sacrebleu leaves out.
    """
    width = max(map(len, references))
    return [[texts[number] if number < len(texts) else None for texts in references] for number in range(width)]


def bleu(mecab: str | None = None) -> SacrebleuMetric:
    """Make corpus BLEU; `mecab` names a tokenizer of `MECAB`, which serves its own language alone."""
    if mecab is None:
        return SacrebleuMetric("bleu", "BLEU", _bleu)
    of_language, module, install = MECAB[mecab]

    def make(language: str, by_character: bool) -> Any:
        return _sacrebleu(mecab) if language == of_language else _bleu(language, by_character)

    return SacrebleuMetric(f"bleu:{mecab}", f"BLEU:{mecab}", make, needs=(module, install))


def chrf(*, word_order: int = 0) -> SacrebleuMetric:
    """Make chrF, which compares characters, or with word order 2 chrF++, which compares words too."""

    def make(language: str, by_character: bool) -> Any:
        from sacrebleu.metrics.chrf import CHRF

        return CHRF(word_order=word_order)

    return SacrebleuMetric("chrf++" if word_order else "chrf", "chrF++" if word_order else "chrF", make)


def ter() -> SacrebleuMetric:
    """Make the translation edit rate, in edits per 100 words of the reference; 0 is best."""
    return SacrebleuMetric("ter", "TER", _ter, higher_is_better=False, spread=True)


def _bleu(language: str, by_character: bool) -> Any:
    return _sacrebleu(BLEU_TOKENIZERS.get(language, "char" if by_character else "13a"))


def _sacrebleu(tokenizer: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    # force: no warnings about outputs that look tokenized; a model may write what it likes.
    return BLEU(tokenize=tokenizer, force=True)


def _ter(language: str, by_character: bool) -> Any:
    from sacrebleu.metrics.ter import TER

    asian = language in ASIAN_TER
    return TER(normalized=asian, asian_support=asian)
