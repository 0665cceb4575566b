"""A plugin that offers a metric and no task: how long predictions are beside their references."""

from collections.abc import Sequence

from lmtasks import Measurement, Metric, Sample, ScoreSpec, hookimpl


class LengthRatio(Metric):
    """Characters of all predictions over characters of all first references."""

    name = "length_ratio"

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        import numpy as np

        lengths = [(len(sample.prediction), len(sample.references[0])) for sample in samples]
        return Measurement(
            statistics=np.array(lengths, dtype=np.float64),
            specs=(ScoreSpec(name=self.name, signature="length_ratio|in:characters|version:1", unit="ratio"),),
            combine=lambda sums: sums[..., :1] / sums[..., 1:],
        )


@hookimpl
def register_metrics() -> list[Metric]:
    return [LengthRatio()]
