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
    """Make a measurement from values per example, each 0 to 1, reported on 0-100.

    Args:
        kinds: for each score its values, one per example; NaN for examples that it is not computed on.
    """
    values = np.array(list(specs.values()), dtype=np.float64).T
    inside = ~np.isnan(values)
    counted = [
        kind if count == len(values) else replace(kind, n=int(count))
        for kind, count in zip(specs, inside.sum(axis=0), strict=True)
    ]

    def combine(sums: FloatArray) -> FloatArray:
        totals, counts = np.split(sums, 2, axis=-1)
        with np.errstate(invalid="ignore"):  # 0 / 0: a resample without any such example
            means: FloatArray = 100 * totals / counts
        return means

    statistics = np.hstack([np.where(inside, values, 0.0), inside])
    return Measurement(statistics=statistics, specs=tuple(counted), combine=combine)


def reference_count(counts: Sequence[int]) -> str:
    """Return the part of a signature that tells how many references the examples have."""
    return f"nrefs:{counts[0] if len(set(counts)) == 1 else 'var'}"
