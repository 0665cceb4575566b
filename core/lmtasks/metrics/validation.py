"""Checks the measurement that a metric returns: types, shapes, and that `combine` treats rows one by one."""

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

MIN_ROWS, MAX_ROWS = 4, 64
"""Limits of the number of resamples that `combine` is tested with."""
COMBINE = (
    "combine must take sums of shape [..., statistics] and return values of shape [..., specs], each row by itself"
    " (sums[..., 0] is the first statistic)"
)


def validated_measurement(measurement: object, samples: Sequence[Sample]) -> Measurement:
    """Return the measurement that a metric returned for samples, after checking it.

    Numbers of any type become float64, and `combine` gets a copy of the sums, which it may change.

    Raises:
        TypeError: it is not a measurement, or has values that are not numbers.
        ValueError: it has another shape, statistics that are not finite, or a `combine` that does not treat rows of
            sums one by one.
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
            " such example makes the score of all of them undefined"
        )
    if not measurement.specs:
        raise ValueError("it has no specs, expected one or more lmtasks.ScoreSpec")
    specs = tuple(_checked_spec(spec, len(samples)) for spec in measurement.specs)
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'two of its specs are named "{twice}"; every score needs a name of its own')
    combine = measurement.combine

    def combined(sums: FloatArray) -> FloatArray:
        return _numbers("what combine returns", combine(sums.copy()))

    validated = replace(measurement, statistics=statistics, specs=specs, combine=combined)
    _check_combine(validated)
    return validated


def _check_combine(measurement: Measurement) -> None:
    """Check that the corpus has a value for each spec, and that `combine` treats rows of sums one by one."""
    values = corpus_values(measurement)
    width, specs = measurement.statistics.shape[1], len(measurement.specs)
    if values.shape != (specs,):
        raise ValueError(f"combine returns values of shape {list(values.shape)} for {specs} specs")
    if not width:
        return  # no rows to combine: such a score has no interval and no test
    # Different from the other axes, so that mixed axes are noticed.
    count = min(MAX_ROWS, max(MIN_ROWS, width + 1, specs + 1))
    rows = bootstrap_sums(measurement.statistics, count, SEED)
    rows[-1] = 2 * measurement.statistics.sum(axis=0)  # differs from the corpus if all examples are equal
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


def _numbers(what: str, values: object) -> FloatArray:
    """Return values as a new array of float64.

    Raises:
        TypeError: a value is not a number.
    """
    array = np.asarray(values)
    are_numbers = array.dtype == object and all(isinstance(value, Real | Decimal) for value in array.flat)
    if np.ma.is_masked(values) or not (array.dtype.kind in "biuf" or are_numbers):
        actual = "masked values" if np.ma.is_masked(values) else f"values of type {array.dtype.type.__name__}"
        raise TypeError(f"{what}: {actual}, expected numbers")
    return array.astype(np.float64)


def _checked_spec(spec: object, samples: int) -> ScoreSpec:
    """Return the spec of a score if it can be recorded; numpy's numbers become Python's.

    Raises:
        TypeError: it is not a spec, or a field has the wrong type.
        ValueError: it has no name, or its number of samples is below 0 or above that of all.
    """
    if not isinstance(spec, ScoreSpec):
        raise TypeError(f"one of its specs is {type(spec).__name__}, expected lmtasks.ScoreSpec")
    for name in ("name", "signature", "unit"):
        if not isinstance(getattr(spec, name), str):
            raise TypeError(f"{name} of one of its specs is {type(getattr(spec, name)).__name__}, expected text")
    if not spec.name.strip():
        raise ValueError("one of its specs has no name")
    better = spec.higher_is_better
    if not isinstance(better, bool | np.bool_ | None):
        raise TypeError(f'higher_is_better of "{spec.name}" is {better!r}, expected True, False or None')
    n = None if spec.n is None else int(spec.n)
    if n is not None and not 0 <= n <= samples:
        raise ValueError(f'n of "{spec.name}" is {n}, expected 0 to {samples}, the number of samples')
    return replace(spec, n=n, higher_is_better=None if better is None else bool(better))
