"""From samples to scores: one language at a time, empty outputs counted like any other."""

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
from lmtasks.metrics.statistics import RESAMPLES, SEED, bootstrap_intervals, can_be_resampled, corpus_values
from lmtasks.metrics.validation import validated_measurement
from lmtasks.task import Measurement, Metric, Sample, Score

log = logging.getLogger("lmtasks.metrics")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricResult:
    """What a metric measured on the samples of one language."""

    metric: str
    label: str
    """What messages call it."""
    measurement: Measurement
    language: str | None
    origin: str
    """The language and how it is known, for signatures; "" for what does not depend on it."""
    samples: Sequence[Sample]
    """In the order of the measurement's rows."""

    def signature(self, place: int) -> str:
        """Return the signature of one of the measurement's kinds."""
        kind = self.measurement.specs[place]
        return f"{kind.signature}|lang:{self.origin}" if self.origin else kind.signature

    def scores(self, *, resamples: int = RESAMPLES, seed: int = SEED) -> list[Score]:
        """Return the scores, with their intervals if there are resamples.

        A score that is not defined on these samples (a length against references without any) is left out.

        Raises:
            PluginError: the metric failed.
        """
        with guarded_call(f"{self.label} failed"):
            values = corpus_values(self.measurement)
            bounds: Sequence[Sequence[float]] = [(math.nan, math.nan)] * len(values)
            if resamples and can_be_resampled(self.measurement):
                bounds = bootstrap_intervals(self.measurement, resamples=resamples, seed=seed).tolist()
            scores = []
            for place, (kind, value, (low, high)) in enumerate(
                zip(self.measurement.specs, values, bounds, strict=True)
            ):
                n = len(self.samples) if kind.n is None else kind.n
                if not math.isfinite(value):
                    # Of health that is nothing to tell: no inputs, no references.
                    if self.origin:
                        log.warning("%s is not defined on these %d examples, and left out", kind.name, n)
                    continue
                bounded = n > 1 and math.isfinite(low) and math.isfinite(high)
                scores.append(
                    Score(
                        name=kind.name,
                        value=float(value),
                        unit=kind.unit,
                        signature=self.signature(place),
                        higher_is_better=kind.higher_is_better,
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
        samples: of a run, or made elsewhere.
        metrics: as `find_metrics` finds them.
        failures: gets what goes wrong with a metric, which costs its scores alone; None: it is raised.

    Raises:
        PluginError: a metric failed; names it and keeps the cause.
        LmtasksError: one of core's own cannot take these samples.
    """
    usable = [sample for sample in samples if sample.references and sample.finish != "skipped"]
    groups = group_by_language(usable)
    metrics = tuple(metrics)
    for complaint in (language_warning(groups), normalization_warning(usable) if metrics else None):
        if complaint is not None:
            log.warning("%s", complaint)
    found = []
    for (language, stated), members in sorted(groups.items(), key=lambda item: (-len(item[1]), str(item[0]))):
        origin = (language or "unknown") + ("" if stated else "(script)")
        labels: dict[str, str] = {}
        for metric in metrics:
            label = metric.label
            with _collected(failures):
                with guarded_call(f"{label} failed"):
                    measurement = validated_measurement(metric.measure(_copies(members), language), members)
                    for kind in measurement.specs:
                        if labels.setdefault(kind.name, label) != label:
                            raise ValueError(f'its score "{kind.name}" has the name of one of {labels[kind.name]}')
                found.append(
                    MetricResult(
                        metric=metric.name,
                        label=label,
                        measurement=measurement,
                        language=language,
                        origin=origin,
                        samples=members,
                    )
                )
    return found


def _copies(samples: Sequence[Sample]) -> list[Sample]:
    """Return samples that a metric may do with as it likes: the next one gets others."""
    return [replace(sample, inputs=dict(sample.inputs), meta=dict(sample.meta)) for sample in samples]


def measure_outputs(samples: Sequence[Sample]) -> list[MetricResult]:
    """Measure the health of all outputs, those without references too; nothing for no outputs."""
    made = sorted((sample for sample in samples if sample.finish != "skipped"), key=lambda sample: sample.index)
    if not made:
        return []
    languages = {
        sample.id: language for (language, _), members in group_by_language(made).items() for sample in members
    }
    return [
        MetricResult(
            metric="health",
            label="the health of outputs",
            measurement=measure_output_checks(made, languages),
            language=None,
            origin="",
            samples=made,
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
        samples: of a run, or made elsewhere.
        metrics: as `find_metrics` finds them.
        resamples: of the bootstrap for the intervals; 0: without intervals.
        seed: of the bootstrap.
        failures: as for `measure_samples`.

    Raises:
        LmtasksError: as for `measure_samples`.
    """
    scores: list[Score] = []
    for measured in measure_samples(samples, metrics, failures=failures):
        with _collected(failures):
            scores += measured.scores(resamples=resamples, seed=seed)
    return scores


def score_outputs(samples: Sequence[Sample], *, resamples: int = RESAMPLES, seed: int = SEED) -> list[Score]:
    """Return what can be told of the health of all outputs: those without references too.

    Args:
        samples: of a run, or made elsewhere.
        resamples: of the bootstrap for the intervals; 0: without intervals.
        seed: of the bootstrap.
    """
    return [score for measured in measure_outputs(samples) for score in measured.scores(resamples=resamples, seed=seed)]


@contextmanager
def _collected(failures: list[LmtasksError] | None) -> Iterator[None]:
    """Keep an error in a list, or let it pass where there is none."""
    try:
        yield
    except LmtasksError as error:
        if failures is None:
            raise
        failures.append(error)
