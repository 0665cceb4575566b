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
from lmtasks.task import Measurement, Metric, Sample, ScoreSpec

if TYPE_CHECKING:
    from lmtasks.task.score import FloatArray

BLEU_TOKENIZERS = {"zh": "zh", "ja": "char", "ko": "char"}
"""Tokenizers by language; others get "char" if their script has no spaces, else "13a", which needs spaces."""
MECAB = {"ja-mecab": ("ja", "MeCab", "'sacrebleu[ja]'"), "ko-mecab": ("ko", "mecab_ko", "'sacrebleu[ko]'")}
"""Word tokenizers: language, required module, and requirement for pip."""

ASIAN_TER = frozenset({"zh", "ja"})
"""Languages for which tercom splits texts into characters; it splits others at spaces."""


@dataclass(frozen=True, slots=True)
class SacrebleuMetric(Metric):
    """A metric of sacrebleu, with its own statistics and signature."""

    name: str
    score_name: str
    """Name of its score."""
    make: Callable[[str, bool], Any]
    """Returns sacrebleu's metric for a primary language subtag; the flag says whether to compare by characters."""
    higher_is_better: bool = True
    needs: tuple[str, str] | None = None
    """Required module, and requirement for pip."""
    spread: bool = False
    """Whether to put spaces between characters when comparing by characters, for a metric that splits at spaces."""

    def check(self) -> None:
        """Check that the required module is installed.

        Raises:
            MetricError: it is not.
        """
        if self.needs:
            require(self.needs[0], self.name, self.needs[1])

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        """Measure samples, as `Metric.measure` describes."""
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

        spec = ScoreSpec(
            name=self.score_name,
            signature=f"{self.score_name}|{metric.get_signature().format()}{'|pretok:char' if spread else ''}",
            higher_is_better=self.higher_is_better,
        )
        return Measurement(statistics=np.array(statistics, dtype=np.float64), specs=(spec,), combine=combine)


def transposed(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """Return references per example as sacrebleu's streams: a list for each reference number, over all examples.

    Examples with fewer references are padded with None, which sacrebleu ignores.
    """
    width = max(map(len, references))
    return [[texts[number] if number < len(texts) else None for texts in references] for number in range(width)]


def bleu(mecab: str | None = None) -> SacrebleuMetric:
    """Return corpus BLEU; `mecab` names a tokenizer of `MECAB`, which is used for its own language only."""
    if mecab is None:
        return SacrebleuMetric("bleu", "BLEU", _bleu)
    of_language, module, install = MECAB[mecab]

    def make(language: str, by_character: bool) -> Any:
        return _sacrebleu(mecab) if language == of_language else _bleu(language, by_character)

    return SacrebleuMetric(f"bleu:{mecab}", f"BLEU:{mecab}", make, needs=(module, install))


def chrf(*, word_order: int = 0) -> SacrebleuMetric:
    """Return chrF, which compares characters, or chrF++ (word order 2), which compares words too."""

    def make(language: str, by_character: bool) -> Any:
        from sacrebleu.metrics.chrf import CHRF

        return CHRF(word_order=word_order)

    return SacrebleuMetric("chrf++" if word_order else "chrf", "chrF++" if word_order else "chrF", make)


def ter() -> SacrebleuMetric:
    """Return the translation edit rate (TER), in edits per 100 words of the reference; 0 is best."""
    return SacrebleuMetric("ter", "TER", _ter, higher_is_better=False, spread=True)


def _bleu(language: str, by_character: bool) -> Any:
    return _sacrebleu(BLEU_TOKENIZERS.get(language, "char" if by_character else "13a"))


def _sacrebleu(tokenizer: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    # force: no warnings about outputs that look tokenized.
    return BLEU(tokenize=tokenizer, force=True)


def _ter(language: str, by_character: bool) -> Any:
    from sacrebleu.metrics.ter import TER

    asian = language in ASIAN_TER
    return TER(normalized=asian, asian_support=asian)
