"""Measurements whose corpus score is the mean over examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmtasks.task import Measurement, ScoreKind

if TYPE_CHECKING:
    from lmtasks.task import FloatArray


def mean_measurement(kinds: Mapping[ScoreKind, Sequence[float]]) -> Measurement:
    """Make a measurement from values per example, each 0 to 1, reported on 0-100.

    Args:
        kinds: for each score its values, one per example, all of the same length.
    """
    values = np.array([*kinds.values(), np.ones(len(next(iter(kinds.values()))))], dtype=np.float64).T

    def combine(sums: FloatArray) -> FloatArray:
        return 100 * sums[..., :-1] / sums[..., -1:]

    return Measurement(statistics=values, kinds=tuple(kinds), combine=combine)


def reference_count(counts: Sequence[int]) -> str:
    """Return the part of a signature that tells how many references the examples have."""
    return f"nrefs:{counts[0] if len(set(counts)) == 1 else 'var'}"
