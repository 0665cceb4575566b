"""Scores of the log-likelihoods that a run measured (`--loglikelihood`): every reference of every example counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from lmtasks.errors import MetricError, option
from lmtasks.metrics.means import reference_count
from lmtasks.task import Measurement, Sample, ScoreSpec

if TYPE_CHECKING:
    from lmtasks.task.score import FloatArray


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely the model finds the references, over all their tokens or bytes; natural logarithms.

    Per byte compares models whatever their tokenizers; per token and perplexity only models with the same. The
    signature therefore tells how many tokens the references have.
    """

    name: Literal["loglikelihood", "perplexity"]

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        """Measure as the protocol says.

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
