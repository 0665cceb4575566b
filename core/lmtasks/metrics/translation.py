"""BLEU and chrF, by sacrebleu."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmtasks.languages import primary
from lmtasks.task import Measurement, Sample, ScoreKind

if TYPE_CHECKING:
    from lmtasks.task import FloatArray

BLEU_TOKENIZERS = {"zh": "zh", "ja": "char", "ko": "char", "th": "char", "lo": "char", "my": "char", "km": "char"}
"""By language; others take "13a", made for languages with spaces."""


@dataclass(frozen=True, slots=True)
class SacrebleuMetric:
    """A metric of sacrebleu, with its own statistics and signature."""

    name: str
    label: str
    """What scores call it."""
    make: Callable[[str], Any]
    """From the primary language subtag to the metric of sacrebleu."""

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        """Measure as the protocol says."""
        metric = self.make(primary(language))
        # sacrebleu has no public way to its statistics per segment; a test pins that their sum gives its corpus
        # score, so a change of theirs cannot pass unseen.
        statistics = metric._extract_corpus_statistics(
            [sample.prediction for sample in samples], transposed([sample.references for sample in samples])
        )

        def combine(sums: FloatArray) -> FloatArray:
            rows = sums.reshape(-1, sums.shape[-1])
            values = [metric._compute_score_from_stats(row.tolist()).score for row in rows]
            return np.array(values).reshape(*sums.shape[:-1], 1)

        return Measurement(
            statistics=np.array(statistics, dtype=np.float64),
            kinds=(ScoreKind(name=self.label, signature=f"{self.label}|{metric.get_signature().format()}"),),
            combine=combine,
        )


def transposed(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """Turn references per example into sacrebleu's streams: one list per reference number, over all examples.

    Examples with fewer references than others are padded by None, which sacrebleu leaves out.
    """
    width = max(map(len, references))
    return [[texts[number] if number < len(texts) else None for texts in references] for number in range(width)]


def _bleu(language: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    # force: no warnings about outputs that look tokenized; a model may write what it likes.
    return BLEU(tokenize=BLEU_TOKENIZERS.get(language, "13a"), force=True)


def _chrf(_: str) -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


BLEU_METRIC = SacrebleuMetric("bleu", "BLEU", _bleu)
CHRF_METRIC = SacrebleuMetric("chrf", "chrF", _chrf)
