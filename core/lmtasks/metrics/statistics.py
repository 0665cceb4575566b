"""Intervals and paired tests from the statistics of examples: other weights, the same statistics.

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
"""Weights that are held in memory at once."""
_ROUNDING = 1e-9
"""Differences closer than this are the same: a sum of fractions depends on its order in the last digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest:
    """How two systems differ on the same examples; each array has one value per score of the measurement."""

    difference: FloatArray
    """The second minus the first."""
    low: FloatArray
    high: FloatArray
    """The 95% interval of the difference, by paired bootstrap."""
    p_bootstrap: FloatArray
    p_randomisation: FloatArray
    """Probabilities of a difference at least this large, either way, if the systems did not differ."""


def corpus_values(measurement: Measurement) -> FloatArray:
    """Return the scores of a corpus, shape [kinds], the same for every order of its examples."""
    # Exact sums, rounded once: numpy's depend on the order in the last digits.
    return measurement.combine(np.array([math.fsum(column) for column in measurement.statistics.T]))


def can_be_resampled(measurement: Measurement) -> bool:
    """Tell whether other weights on the examples say anything: there are two of them, with statistics."""
    return measurement.statistics.shape[1] > 0 and len(measurement.statistics) > 1


def bootstrap_intervals(measurement: Measurement, *, resamples: int = RESAMPLES, seed: int = SEED) -> FloatArray:
    """Return the 95% intervals of the scores, by percentiles of the bootstrap over examples.

    Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13. A resample in which a score is not
    defined (none of the examples it is computed on was drawn) is left out.

    Returns:
        Shape [kinds, 2]: low and high.
    """
    values = measurement.combine(bootstrap_sums(measurement.statistics, resamples, seed))
    return _percentiles(values)


def paired_test(
    first: Measurement,
    second: Measurement,
    *,
    resamples: int = RESAMPLES,
    trials: int = TRIALS,
    seed: int = SEED,
) -> PairedTest:
    """Compare two systems on the same examples, in the same order.

    The interval and `p_bootstrap` are by paired bootstrap (Koehn 2004, "Statistical significance tests for machine
    translation evaluation"), its distribution moved to a difference of 0 for the probability; `p_randomisation` is by
    approximate randomisation (Noreen 1989; Riezler and Maxwell 2005), which changes outputs between the systems and
    assumes less. Where there are no more than `trials` ways to swap, all of them are tried: the probability is exact.

    Raises:
        ValueError: the measurements are of different examples or statistics.
    """
    a, b = first.statistics, second.statistics
    if a.shape != b.shape:
        raise ValueError(f"statistics of shapes {a.shape} and {b.shape} cannot be paired")
    difference = corpus_values(second) - corpus_values(first)
    drawn = second.combine(bootstrap_sums(b, resamples, seed)) - first.combine(bootstrap_sums(a, resamples, seed))
    interval = _percentiles(drawn)
    exact = 2 ** len(a) <= trials
    swapped = _every_swap(b - a) if exact else _swapped_sums(b - a, trials, seed)
    changed = second.combine(b.sum(axis=0) - swapped) - first.combine(a.sum(axis=0) + swapped)
    return PairedTest(
        difference=difference,
        low=interval[:, 0],
        high=interval[:, 1],
        p_bootstrap=_probability(drawn - difference, difference, drawn_too=1),
        # All swaps hold the observed one; a sample of them has it added.
        p_randomisation=_probability(changed, difference, drawn_too=0 if exact else 1),
    )


def smallest_probability(examples: int, trials: int) -> float:
    """Return the smallest `p_randomisation` that so many examples and trials can give, before any correction."""
    return 2.0 ** (1 - examples) if 2**examples <= trials else max(2.0 ** (1 - examples), 1 / (trials + 1))


def holm(probabilities: Sequence[float]) -> list[float]:
    """Correct the probabilities of several tests, so that the chance of any false finding stays as small.

    Holm 1979, "A simple sequentially rejective multiple test procedure". NaN stays NaN and does not count.
    """
    order = sorted((p, at) for at, p in enumerate(probabilities) if not math.isnan(p))
    corrected = [math.nan] * len(probabilities)
    highest = 0.0
    for rank, (p, at) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        corrected[at] = highest
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
    """Return what changes hands when each example is swapped with probability 1/2, shape [trials, statistics]."""
    rng = np.random.default_rng(seed)
    n = len(differences)
    sums = []
    for rows in _chunks(trials, n):
        bits = np.frombuffer(rng.bytes(math.ceil(rows * n / 8)), dtype=np.uint8)
        swapped = np.unpackbits(bits, count=rows * n).reshape(rows, n)
        sums.append(swapped.astype(np.float64) @ differences)
    return np.concatenate(sums)


def _every_swap(differences: FloatArray) -> FloatArray:
    """Return what changes hands for each set of examples that could be swapped, shape [2 ** examples, statistics]."""
    n = len(differences)
    swapped = np.arange(2**n)[:, None] >> np.arange(n) & 1
    sums: FloatArray = swapped.astype(np.float64) @ differences
    return sums


def _chunks(rows: int, width: int) -> Iterator[int]:
    size = max(1, _CELLS // width)
    for start in range(0, rows, size):
        yield min(size, rows - start)


def _percentiles(values: FloatArray) -> FloatArray:
    """Return the bounds that hold the middle 95% of each column, shape [columns, 2]."""
    tail = (1 - CONFIDENCE) / 2
    bounds = []
    for column in values.T:
        defined = column[~np.isnan(column)]
        bounds.append(np.quantile(defined, [tail, 1 - tail]) if len(defined) else [math.nan, math.nan])
    return np.array(bounds)


def _probability(under_null: FloatArray, difference: FloatArray, *, drawn_too: int) -> FloatArray:
    """Return the share of values that lie as far from 0 as the observed difference.

    Args:
        under_null: values where there is no difference, shape [values, kinds].
        difference: observed, shape [kinds].
        drawn_too: how often the observed one is counted in beside them.
    """
    scale = _ROUNDING * np.maximum(1.0, np.abs(difference))
    # A value that is not defined speaks for no difference.
    as_far = ~(np.abs(under_null) < np.abs(difference) - scale)
    p: FloatArray = (as_far.sum(axis=0) + drawn_too) / (len(under_null) + drawn_too)
    return np.where(np.isnan(difference), np.nan, p)
