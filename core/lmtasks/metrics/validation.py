"""What a metric returned, checked: types, shapes, and that many rows combine as each of them does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from lmtasks.isolation import cause
from lmtasks.metrics.statistics import SEED, bootstrap_sums, corpus_values
from lmtasks.task import Measurement, Sample, ScoreSpec

if TYPE_CHECKING:
    from lmtasks.task.score import FloatArray

LEAST_ROWS, MOST_ROWS = 4, 64
"""Resamples that `combine` is tried with."""
COMBINE = (
    "combine must take sums of shape [..., statistics] and return values of shape [..., kinds], each row by itself"
    " (sums[..., 0] is the first statistic)"
)


def validated_measurement(measurement: object, samples: Sequence[Sample]) -> Measurement:
    """Return what a metric measured on some samples, if it is what it should be.

    Numbers of any type become float64, and `combine` gets sums of its own each time: what it changes of them changes
    nothing else.

    Raises:
        TypeError: it is something else, or holds something else than numbers.
        ValueError: it has another shape, holds statistics that are not finite, or `combine` does not combine many
            rows of sums as it combines each of them.
    """
    if not isinstance(measurement, Measurement):
        raise TypeError(f"it returned {type(measurement).__name__}, expected lmtasks.Measurement")
    statistics = _numbers("statistics", measurement.statistics)
    if statistics.ndim != 2:
        raise ValueError(f"statistics of shape {list(statistics.shape)}, expected [examples, statistics]")
    if len(statistics) != len(samples):
        raise ValueError(f"{len(statistics)} rows of statistics for {len(samples)} samples")
    finite = np.isfinite(statistics).all(axis=1)
    if not finite.all():
        first = int(np.argmin(finite))
        raise ValueError(
            f'the statistics of example "{samples[first].id}" are {statistics[first].tolist()}, and must be finite: one'
            " such example would undo the score of all"
        )
    if not measurement.specs:
        raise ValueError("it has no kinds, expected one or more lmtasks.ScoreSpec")
    specs = tuple(_checked_kind(kind, len(samples)) for kind in measurement.specs)
    names = [kind.name for kind in specs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'two of its kinds are named "{twice}"; every score needs a name of its own')
    combine = measurement.combine

    def combined(sums: FloatArray) -> FloatArray:
        return _numbers("what combine returns", combine(sums.copy()))

    found = replace(measurement, statistics=statistics, specs=specs, combine=combined)
    _check_combine(found)
    return found


def _check_combine(measurement: Measurement) -> None:
    """See that the corpus has a value for each kind, and that `combine` treats rows of sums one by one."""
    values = corpus_values(measurement)
    width, specs = measurement.statistics.shape[1], len(measurement.specs)
    if values.shape != (specs,):
        raise ValueError(f"combine returns values of shape {list(values.shape)} for {specs} kinds")
    if not width:
        return  # there are no rows: such a score has no interval and no test
    # Other than the other axes, so that no mix of axes looks right.
    count = min(MOST_ROWS, max(LEAST_ROWS, width + 1, specs + 1))
    rows = bootstrap_sums(measurement.statistics, count, SEED)
    rows[-1] = 2 * measurement.statistics.sum(axis=0)  # others than a corpus has, where all examples are alike
    with np.errstate(all="ignore"):  # a resample may leave a score undefined
        try:
            together = measurement.combine(rows)
        except Exception as error:
            raise ValueError(f"{COMBINE}; for shape {list(rows.shape)} it raised {cause(error)}") from error
        if together.shape != (count, specs):
            raise ValueError(f"{COMBINE}; for shape {list(rows.shape)} it returned {list(together.shape)}")
        alone = np.stack([measurement.combine(row) for row in rows])
        again = corpus_values(measurement)
    if not np.allclose(again, values, equal_nan=True):
        raise ValueError(f"combine must return the same for the same sums, not {values.tolist()} and {again.tolist()}")
    if not np.allclose(together, alone, equal_nan=True):
        raise ValueError(f"{COMBINE}; of {count} rows at once it makes other values than of each by itself")


def _numbers(what: str, given: object) -> FloatArray:
    """Return a new array of float64.

    Raises:
        TypeError: it holds something else than numbers.
    """
    array = np.asarray(given)
    listed = array.dtype == object and all(isinstance(value, Real | Decimal) for value in array.flat)
    if np.ma.is_masked(given) or not (array.dtype.kind in "biuf" or listed):
        kind = "masked values" if np.ma.is_masked(given) else f"values of type {array.dtype.type.__name__}"
        raise TypeError(f"{what}: {kind}, expected numbers")
    return array.astype(np.float64)


def _checked_kind(kind: object, samples: int) -> ScoreSpec:
    """Return a kind of score, if it can be recorded; numpy's numbers as Python's.

    Raises:
        TypeError: it is something else, or holds something else than it should.
        ValueError: it has no name, or is computed on fewer than no or more than all samples.
    """
    if not isinstance(kind, ScoreSpec):
        raise TypeError(f"one of its kinds is {type(kind).__name__}, expected lmtasks.ScoreSpec")
    for name in ("name", "signature", "unit"):
        if not isinstance(getattr(kind, name), str):
            raise TypeError(f"{name} of one of its kinds is {type(getattr(kind, name)).__name__}, expected text")
    if not kind.name.strip():
        raise ValueError("one of its kinds has no name")
    better = kind.higher_is_better
    if not isinstance(better, bool | np.bool_ | None):
        raise TypeError(f'higher_is_better of "{kind.name}" is {better!r}, expected True, False or None')
    n = None if kind.n is None else int(kind.n)
    if n is not None and not 0 <= n <= samples:
        raise ValueError(f'n of "{kind.name}" is {n}, expected 0 to {samples}, the number of samples')
    return replace(kind, n=n, higher_is_better=None if better is None else bool(better))
