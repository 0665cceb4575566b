"""Scores samples, one language at a time; empty outputs count like any other."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from lmtasks.errors import LmtasksError
from lmtasks.isolation import guarded_call
from lmtasks.metrics.language import group_by_language, language_warning
from lmtasks.metrics.normalization import normalization_warning
from lmtasks.metrics.output_checks import measure_output_checks
from lmtasks.metrics.statistics import SEED, bootstrap_intervals, can_be_resampled, corpus_values
from lmtasks.metrics.validation import validated_measurement
from lmtasks.options.score import RESAMPLES
from lmtasks.task import Measurement, Metric, Sample, Score

log = logging.getLogger("lmtasks.metrics")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricResult:
    """The measurement of a metric on the samples of one language."""

    metric: str
    label: str
    """The metric's name in messages."""
    measurement: Measurement
    language: str | None
    language_tag: str
    """The language and how it is known, for signatures; "" for checks that do not depend on it."""
    samples: Sequence[Sample]
    """The samples, in the order of the measurement's rows."""

    def signature(self, index: int) -> str:
        """Return the signature of a score, given the index of its spec."""
        spec = self.measurement.specs[index]
        return f"{spec.signature}|lang:{self.language_tag}" if self.language_tag else spec.signature

    def scores(self, *, resamples: int = RESAMPLES, seed: int = SEED) -> list[Score]:
        """Return the scores, with intervals if there are resamples.

        A score that is not defined on these samples (a length ratio to blank references) is left out.

        Raises:
            PluginError: the metric failed.
        """
        with guarded_call(f"{self.label} failed"):
            values = corpus_values(self.measurement)
            bounds: Sequence[Sequence[float]] = [(math.nan, math.nan)] * len(values)
            if resamples and can_be_resampled(self.measurement):
                bounds = bootstrap_intervals(self.measurement, resamples=resamples, seed=seed).tolist()
            scores = []
            for index, (spec, value, (low, high)) in enumerate(
                zip(self.measurement.specs, values, bounds, strict=True)
            ):
                n = len(self.samples) if spec.n is None else spec.n
                if not math.isfinite(value):
                    # For output checks this is usual: there are no inputs or no references.
                    if self.language_tag:
                        log.warning("%s is not defined on these %d examples, and left out", spec.name, n)
                    continue
                bounded = n > 1 and math.isfinite(low) and math.isfinite(high)
                scores.append(
                    Score(
                        name=spec.name,
                        value=float(value),
                        unit=spec.unit,
                        signature=self.signature(index),
                        higher_is_better=spec.higher_is_better,
                        language=self.language,
                        n=n,
                        low=low if bounded else None,
                        high=high if bounded else None,
                    )
                )
        return scores


def measure_samples(
    samples: Sequence[Sample], metrics: Iterable[Metric], *, failures: list[LmtasksError] | None = None
) -> list[MetricResult]:
    """Measure a corpus with each metric.

    Samples without references, and those that were skipped, are left out. A set in several languages is measured
    once per language, the largest group first.

    Args:
        samples: of a run, or from elsewhere.
        metrics: as `find_metrics` returns them.
        failures: collects the errors of metrics, whose scores are then missing; None: the first error is raised.

    Raises:
        PluginError: a metric failed; names it and keeps the cause.
        LmtasksError: a built-in metric cannot measure these samples.
    """
    usable = [sample for sample in samples if sample.references and sample.finish_reason != "skipped"]
    groups = group_by_language(usable)
    metrics = tuple(metrics)
    for warning in (language_warning(groups), normalization_warning(usable) if metrics else None):
        if warning is not None:
            log.warning("%s", warning)
    results = []
    for (language, stated), members in sorted(groups.items(), key=lambda item: (-len(item[1]), str(item[0]))):
        language_tag = (language or "unknown") + ("" if stated else "(script)")
        labels: dict[str, str] = {}
        for metric in metrics:
            label = metric.label
            with _collected(failures):
                with guarded_call(f"{label} failed"):
                    measurement = validated_measurement(metric.measure(_defensive_copies(members), language), members)
                    for spec in measurement.specs:
                        if labels.setdefault(spec.name, label) != label:
                            raise ValueError(f'its score "{spec.name}" has the name of one of {labels[spec.name]}')
                results.append(
                    MetricResult(
                        metric=metric.name,
                        label=label,
                        measurement=measurement,
                        language=language,
                        language_tag=language_tag,
                        samples=members,
                    )
                )
    return results


def _defensive_copies(samples: Sequence[Sample]) -> list[Sample]:
    """Return copies of samples, so that a metric that changes them affects no other metric."""
    return [replace(sample, inputs=dict(sample.inputs), meta=dict(sample.meta)) for sample in samples]


def measure_outputs(samples: Sequence[Sample]) -> list[MetricResult]:
    """Run the output checks on all outputs, with or without references; without outputs there is no result."""
    outputs = sorted(
        (sample for sample in samples if sample.finish_reason != "skipped"), key=lambda sample: sample.index
    )
    if not outputs:
        return []
    languages = {
        sample.id: language for (language, _), members in group_by_language(outputs).items() for sample in members
    }
    return [
        MetricResult(
            metric="output_checks",
            label="the output checks",
            measurement=measure_output_checks(outputs, languages),
            language=None,
            language_tag="",
            samples=outputs,
        )
    ]


def score_samples(
    samples: Sequence[Sample],
    metrics: Iterable[Metric],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    failures: list[LmtasksError] | None = None,
) -> list[Score]:
    """Score a corpus.

    Args:
        samples: of a run, or from elsewhere.
        metrics: as `find_metrics` returns them.
        resamples: of the bootstrap for the intervals; 0: no intervals.
        seed: of the bootstrap.
        failures: as for `measure_samples`.

    Raises:
        LmtasksError: as for `measure_samples`.
    """
    scores: list[Score] = []
    for result in measure_samples(samples, metrics, failures=failures):
        with _collected(failures):
            scores += result.scores(resamples=resamples, seed=seed)
    return scores


def score_outputs(samples: Sequence[Sample], *, resamples: int = RESAMPLES, seed: int = SEED) -> list[Score]:
    """Return the scores of the output checks of all outputs, with or without references.

    Args:
        samples: of a run, or from elsewhere.
        resamples: of the bootstrap for the intervals; 0: no intervals.
        seed: of the bootstrap.
    """
    return [score for result in measure_outputs(samples) for score in result.scores(resamples=resamples, seed=seed)]


@contextmanager
def _collected(failures: list[LmtasksError] | None) -> Iterator[None]:
    """Append an error to a list, or raise it if there is no list."""
    try:
        yield
    except LmtasksError as error:
        if failures is None:
            raise
        failures.append(error)
