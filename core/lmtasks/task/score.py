"""What a metric measures, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from lmtasks.task.sample import Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One number about a corpus, with all that is needed to compare it."""

    name: str
    value: float
    unit: str
    """The scale: "0-100" for the usual metrics."""
    signature: str
    """Metric, version, tokenizer, language, references: scores with other signatures do not compare."""
    higher_is_better: bool | None
    """None where neither is: a length ratio, or a foreign metric that does not say."""
    language: str | None
    """Of the references it was computed on; a mixed set has a score for each. None: could not be told, or any."""
    n: int
    """How many examples it was computed on."""
    low: float | None = None
    high: float | None = None
    """The 95% bootstrap interval; None where it was not asked for or examples cannot be resampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSpec:
    """What one value of a measurement is called and means."""

    name: str
    signature: str
    unit: str = "0-100"
    higher_is_better: bool | None = True
    n: int | None = None
    """How many examples it is computed on, where those are not all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Statistics per example that add up, and the corpus scores as a function of their sum.

    Whatever needs other weights on the examples (intervals, paired tests) sums again and never measures again.
    """

    statistics: FloatArray
    """Shape [examples, statistics]. Without any statistics, shape [examples, 0], the scores are known for the corpus
    alone: they have no interval and no test."""
    specs: tuple[ScoreSpec, ...]
    combine: Callable[[FloatArray], FloatArray]
    """From sums of statistics, shape [..., statistics], to values, shape [..., kinds], each row by itself."""


@runtime_checkable
class Metric(Protocol):
    """Scores a corpus.

    A metric may also have a method `check()`, without arguments, which raises where it cannot be computed (a package is
    missing); it is called before a model is loaded.
    """

    @property
    def name(self) -> str:
        """What tasks and `--metrics` call it."""
        ...

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        """Measure samples whose references are all in one language.

        Args:
            samples: at least one; each has at least one reference. An empty prediction counts like any other.
            language: of the references, a BCP 47 tag; None where it could not be told.
        """
        ...
