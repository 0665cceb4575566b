"""Metrics, what they measure, and scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    """Metric, version, tokenizer, language, references: scores are comparable only if their signatures are equal."""
    higher_is_better: bool | None
    """None if neither is better (a length ratio), or if the metric does not say."""
    language: str | None
    """Language of the references; a mixed set has a score for each language. None: not known, or any."""
    n: int
    """Number of examples it was computed on."""
    low: float | None = None
    high: float | None = None
    """The 95% bootstrap interval; None if it was not requested or examples cannot be resampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSpec:
    """Name and meaning of one value of a measurement."""

    name: str
    signature: str
    unit: str = "0-100"
    higher_is_better: bool | None = True
    n: int | None = None
    """Number of examples it is computed on; None: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Statistics per example that add up, and the corpus scores as a function of their sum.

    Intervals and paired tests weigh the examples differently: they sum the statistics again, and measure nothing again.
    """

    statistics: FloatArray
    """Shape [examples, statistics]; [examples, 0] for scores of a whole corpus, which have no interval and no test."""
    specs: tuple[ScoreSpec, ...]
    combine: Callable[[FloatArray], FloatArray]
    """Returns values, shape [..., specs], for sums of statistics, shape [..., statistics], each row by itself."""


class Metric(ABC):
    """Scores a corpus. A subclass has a `name` and a method `measure`; the other members have defaults."""

    __slots__ = ()

    name: str
    """Name of the metric in tasks and `--metrics`."""

    @property
    def label(self) -> str:
        """Name of the metric in messages."""
        return f'metric "{self.name}"'

    def check(self) -> None:  # noqa: B027 - most metrics need nothing
        """Raise an error that says what to do if the metric cannot be computed here, such as for a missing package.

        It is called before a model is loaded.
        """

    def check_references(self, most: int) -> None:  # noqa: B027 - most metrics take any number
        """Raise an error if the metric cannot score examples with this many references.

        It is called before a model is loaded.

        Args:
            most: the largest number of references that an example of the data has.
        """

    @abstractmethod
    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        """Measure samples whose references are all in one language.

        Args:
            samples: at least one; each has at least one reference. An empty prediction counts like any other.
            language: of the references, a BCP 47 tag; None if it is not known.
        """
