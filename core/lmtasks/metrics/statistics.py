"""Confidence intervals and paired tests, which weigh the statistics of examples differently.

Every function is deterministic in its seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmtasks.options.score import RESAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lmtasks.task import Measurement
    from lmtasks.task.score import FloatArray

CONFIDENCE = 0.95
TRIALS = 10_000
SEED = 0
_CELLS = 2**22
"""Limit of the weights in memory at once."""
_ROUNDING = 1e-9
"""Differences closer than this are equal: a sum of fractions depends on its order in the last digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest:
    """The difference of two systems on the same examples; each array has one value per score of the measurement."""

    difference: FloatArray
    """Candidate minus baseline."""
    low: FloatArray
    high: FloatArray
    """The 95% interval of the difference, by paired bootstrap."""
    p_bootstrap: FloatArray
    p_randomization: FloatArray
    """Two-sided p-values: probabilities of a difference at least this large if the systems did not differ."""


def corpus_values(measurement: Measurement) -> FloatArray:
    """Return the scores of a corpus, shape [specs]; the order of the examples does not matter."""
    # Exact sums, rounded once: numpy's depend on the order in the last digits.
    return measurement.combine(np.array([math.fsum(column) for column in measurement.statistics.T]))


def can_be_resampled(measurement: Measurement) -> bool:
    """Return whether examples can be resampled: there are at least two, with statistics."""
    return measurement.statistics.shape[1] > 0 and len(measurement.statistics) > 1


def bootstrap_intervals(measurement: Measurement, *, resamples: int = RESAMPLES, seed: int = SEED) -> FloatArray:
    """Return the 95% intervals of the scores, by percentiles of the bootstrap over examples.

    Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13. Resamples in which a score is not
    defined (none of its examples was drawn) are left out.

    Returns:
        Shape [specs, 2]: low and high.
    """
    values = measurement.combine(bootstrap_sums(measurement.statistics, resamples, seed))
    return _percentiles(values)


def paired_test(
    baseline: Measurement,
    candidate: Measurement,
    *,
    resamples: int = RESAMPLES,
    trials: int = TRIALS,
    seed: int = SEED,
) -> PairedTest:
    """Compare two systems on the same examples, in the same order.

    The interval and `p_bootstrap` are by paired bootstrap (Koehn 2004, "Statistical significance tests for machine
    translation evaluation"), its distribution shifted to a mean difference of 0 for the p-value. `p_randomization` is
    by approximate randomization (Noreen 1989; Riezler and Maxwell 2005), which swaps outputs of the systems and assumes
    less. If there are no more than `trials` ways to swap, all of them are tried, and the p-value is exact.

    Raises:
        ValueError: the measurements have different shapes.
    """
    a, b = baseline.statistics, candidate.statistics
    if a.shape != b.shape:
        raise ValueError(f"statistics of shapes {a.shape} and {b.shape} cannot be paired")
    difference = corpus_values(candidate) - corpus_values(baseline)
    resampled = [
        measurement.combine(bootstrap_sums(measurement.statistics, resamples, seed))
        for measurement in (baseline, candidate)
    ]
    drawn = resampled[1] - resampled[0]
    interval = _percentiles(drawn)
    exact = 2 ** len(a) <= trials
    swapped = _every_swap(b - a) if exact else _swapped_sums(b - a, trials, seed)
    changed = candidate.combine(b.sum(axis=0) - swapped) - baseline.combine(a.sum(axis=0) + swapped)
    return PairedTest(
        difference=difference,
        low=interval[:, 0],
        high=interval[:, 1],
        p_bootstrap=_probability(drawn - difference, difference, observed=1),
        # All swaps include the observed one; it is added to a sample of them.
        p_randomization=_probability(changed, difference, observed=0 if exact else 1),
    )


def smallest_probability(examples: int, trials: int) -> float:
    """Return the smallest possible `p_randomization` for a number of examples and trials, without correction."""
    return 2.0 ** (1 - examples) if 2**examples <= trials else max(2.0 ** (1 - examples), 1 / (trials + 1))


def holm(probabilities: Sequence[float]) -> list[float]:
    """Return the p-values of several tests, corrected for multiple testing.

    Holm 1979, "A simple sequentially rejective multiple test procedure". NaN stays NaN and does not count.
    """
    order = sorted((p, index) for index, p in enumerate(probabilities) if not math.isnan(p))
    corrected = [math.nan] * len(probabilities)
    highest = 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        corrected[index] = highest
    return corrected


def bootstrap_sums(statistics: FloatArray, resamples: int, seed: int) -> FloatArray:
    """Return the sums of resamples, shape [resamples, statistics]."""
    rng = np.random.default_rng(seed)
    n = len(statistics)
    sums = []
    for rows in _chunks(resamples, n):
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        sums.append(counts.astype(np.float64) @ statistics)
    return np.concatenate(sums)


def _swapped_sums(differences: FloatArray, trials: int, seed: int) -> FloatArray:
    """Return sums over the examples that are swapped, each with probability 1/2, shape [trials, statistics]."""
    rng = np.random.default_rng(seed)
    n = len(differences)
    sums = []
    for rows in _chunks(trials, n):
        bits = np.frombuffer(rng.bytes(math.ceil(rows * n / 8)), dtype=np.uint8)
        swapped = np.unpackbits(bits, count=rows * n).reshape(rows, n)
        sums.append(swapped.astype(np.float64) @ differences)
    return np.concatenate(sums)


def _every_swap(differences: FloatArray) -> FloatArray:
    """Return sums over each subset of examples, which would be swapped, shape [2 ** examples, statistics]."""
    n = len(differences)
    swapped = np.arange(2**n)[:, None] >> np.arange(n) & 1
    sums: FloatArray = swapped.astype(np.float64) @ differences
    return sums


def _chunks(rows: int, width: int) -> Iterator[int]:
    size = max(1, _CELLS // width)
    for start in range(0, rows, size):
        yield min(size, rows - start)


def _percentiles(values: FloatArray) -> FloatArray:
    """Return the bounds of the middle 95% of each column, shape [columns, 2]."""
    tail = (1 - CONFIDENCE) / 2
    bounds = []
    for column in values.T:
        defined = column[~np.isnan(column)]
        bounds.append(np.quantile(defined, [tail, 1 - tail]) if len(defined) else [math.nan, math.nan])
    return np.array(bounds)


def _probability(under_null: FloatArray, difference: FloatArray, *, observed: int) -> FloatArray:
    """Return the share of values that are at least as far from 0 as the observed difference.

    Args:
        under_null: values under the null hypothesis, shape [values, specs].
        difference: observed, shape [specs].
        observed: how often the observed difference is counted with them.
    """
    scale = _ROUNDING * np.maximum(1.0, np.abs(difference))
    # A value that is not defined counts for the null hypothesis.
    as_far = ~(np.abs(under_null) < np.abs(difference) - scale)
    p: FloatArray = (as_far.sum(axis=0) + observed) / (len(under_null) + observed)
    return np.where(np.isnan(difference), np.nan, p)
