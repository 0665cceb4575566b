"""From samples to scores: one language at a time, empty outputs counted like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from lmtasks.errors import PluginError, unknown_name
from lmtasks.metrics.answers import EXACT_MATCH, TOKEN_F1
from lmtasks.metrics.language import group_by_language
from lmtasks.metrics.rouge import Rouge
from lmtasks.metrics.translation import BLEU_METRIC, CHRF_METRIC
from lmtasks.task import Metric, Sample, Score

CORE: dict[str, Metric] = {metric.name: metric for metric in (BLEU_METRIC, CHRF_METRIC, Rouge(), EXACT_MATCH, TOKEN_F1)}
"""The metrics that have bare names."""


def find_metrics(names: Iterable[str | Metric], from_plugin: Callable[[str], Metric]) -> tuple[Metric, ...]:
    """Turn names into metrics.

    Args:
        names: bare names of core's own, "<plugin>/<metric>", or metrics themselves.
        from_plugin: finds the second kind.

    Raises:
        UnknownNameError: there is no such metric.
    """
    found = []
    for name in names:
        if not isinstance(name, str):
            found.append(name)
        elif "/" in name:
            found.append(from_plugin(name))
        elif name in CORE:
            found.append(CORE[name])
        else:
            raise unknown_name("metric", name, CORE)
    return tuple(found)


def score_samples(samples: Sequence[Sample], metrics: Iterable[Metric]) -> list[Score]:
    """Score a corpus.

    Samples without references, and those that were skipped, are left out. A set in several languages gets each
    score once per language, the largest group first.

    Raises:
        PluginError: a metric failed; names it and keeps the cause.
    """
    usable = [sample for sample in samples if sample.references and sample.finish != "skipped"]
    groups = group_by_language(usable)
    metrics = tuple(metrics)
    scores = []
    for (language, stated), members in sorted(groups.items(), key=lambda item: (-len(item[1]), str(item[0]))):
        origin = (language or "unknown") + ("" if stated else "(script)")
        for metric in metrics:
            try:
                measurement = metric.measure(members, language)
                if len(measurement.statistics) != len(members):
                    raise ValueError(f"{len(measurement.statistics)} rows of statistics for {len(members)} samples")
                values = measurement.combine(measurement.statistics.sum(axis=0))
                named = list(zip(measurement.kinds, values, strict=True))
            except Exception as error:
                raise PluginError(f'metric "{metric.name}" failed: {type(error).__name__}: {error}') from error
            scores += [
                Score(
                    name=kind.name,
                    value=float(value),
                    unit=kind.unit,
                    signature=f"{kind.signature}|lang:{origin}",
                    higher_is_better=kind.higher_is_better,
                    language=language,
                    n=len(members),
                )
                for kind, value in named
            ]
    return scores
