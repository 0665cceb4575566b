"""Measurements whose corpus score is the mean over examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lmtasks.task import Measurement, ScoreSpec

if TYPE_CHECKING:
    from lmtasks.task.score import FloatArray


def mean_measurement(specs: Mapping[ScoreSpec, Sequence[float] | FloatArray]) -> Measurement:
    """Return a measurement of values per example, each 0 to 1; the scores are their means on the scale 0-100.

    Args:
        specs: for each score its values, one per example; NaN for examples that it is not computed on.
    """
    values = np.array(list(specs.values()), dtype=np.float64).T
    defined = ~np.isnan(values)
    counted = [
        spec if count == len(values) else replace(spec, n=int(count))
        for spec, count in zip(specs, defined.sum(axis=0), strict=True)
    ]

    def combine(sums: FloatArray) -> FloatArray:
        totals, counts = np.split(sums, 2, axis=-1)
        with np.errstate(invalid="ignore"):  # 0 / 0: a resample without any such example
            means: FloatArray = 100 * totals / counts
        return means

    statistics = np.hstack([np.where(defined, values, 0.0), defined])
    return Measurement(statistics=statistics, specs=tuple(counted), combine=combine)


def reference_count(counts: Sequence[int]) -> str:
    """Return the part of a signature that states how many references the examples have."""
    return f"nrefs:{counts[0] if len(set(counts)) == 1 else 'var'}"
