"""Scores from the log-likelihoods of the references, which a run with `--loglikelihood` measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from lmtasks.errors import MetricError, option
from lmtasks.metrics.means import reference_count
from lmtasks.task import Measurement, Metric, Sample, ScoreSpec

if TYPE_CHECKING:
    from lmtasks.task.score import FloatArray


@dataclass(frozen=True, slots=True)
class Likelihood(Metric):
    """Mean log-likelihood (natural logarithm) of the tokens or bytes of all references.

    Values per byte compare models with any tokenizers; values per token and perplexity compare only models with the
    same one. The signature therefore contains the number of tokens of the references.
    """

    name: Literal["loglikelihood", "perplexity"]

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        """Measure samples, as `Metric.measure` describes.

        Raises:
            MetricError: a sample has no log-likelihoods.
        """
        for sample in samples:
            if len(sample.loglikelihoods) != len(sample.references):
                raise MetricError(
                    f'metric "{self.name}" needs log-likelihoods, and example "{sample.id}" has none: only a run with'
                    f" {option('loglikelihood', True)} measures them"
                )
        statistics = np.array(
            [
                [
                    sum(measured.logprob for measured in sample.loglikelihoods),
                    sum(
                        measured.tokens if self.name == "perplexity" else measured.bytes
                        for measured in sample.loglikelihoods
                    ),
                ]
                for sample in samples
            ],
            dtype=np.float64,
        )
        unit = "tokens" if self.name == "perplexity" else "bytes"
        refs = reference_count([len(sample.references) for sample in samples])
        signature = f"{refs}|agg:sum|end:no|{unit}:{int(statistics[:, 1].sum())}|version:1"
        if self.name == "loglikelihood":
            specs = [ScoreSpec(name="logprob_per_byte", unit="nats", signature=f"logprob_per_byte|{signature}")]
        else:
            specs = [
                ScoreSpec(name="logprob_per_token", unit="nats", signature=f"logprob_per_token|{signature}"),
                ScoreSpec(
                    name="perplexity", unit="1 is best", signature=f"perplexity|{signature}", higher_is_better=False
                ),
            ]

        def combine(sums: FloatArray) -> FloatArray:
            with np.errstate(invalid="ignore"):  # 0 / 0: references without any text
                mean = sums[..., 0] / sums[..., 1]
            return np.stack([mean, np.exp(-mean)][: len(specs)], axis=-1)

        return Measurement(statistics=statistics, specs=tuple(specs), combine=combine)
