"""Metrics by name: the built-in ones, those of plugins, and modules of `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lmtasks.errors import MetricError, option, unknown_name
from lmtasks.isolation import guarded_call, shortened
from lmtasks.metrics.answers import EXACT_MATCH, TOKEN_F1
from lmtasks.metrics.evaluate_bridge import PREFIX, EvaluateMetric
from lmtasks.metrics.likelihood import Likelihood
from lmtasks.metrics.rouge import Rouge
from lmtasks.metrics.sacrebleu_metrics import bleu, chrf, ter
from lmtasks.task import Example, Measurement, Metric, Sample

BUILTIN_METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        bleu(),
        bleu("ja-mecab"),
        bleu("ko-mecab"),
        chrf(),
        chrf(word_order=2),
        ter(),
        Rouge(),
        Rouge("rouge:nostem", stem=False),
        Rouge("rouge:jieba", jieba=True),
        Rouge("rouge:char", char=True),
        EXACT_MATCH,
        TOKEN_F1,
        Likelihood("loglikelihood"),
        Likelihood("perplexity"),
    )
}
"""The metrics without a plugin's name; what follows a colon is a setting."""


def find_metrics(names: Iterable[str | Metric], from_plugin: Callable[[str], Metric]) -> tuple[Metric, ...]:
    """Return the metrics that names stand for, each once, and check that they can be computed.

    Args:
        names: names of built-in metrics, "<plugin>/<metric>", "evaluate:<path or id>", or metrics. "evaluate:" loads
            code: pass names that a file holds through `metrics_in_file` first.
        from_plugin: returns the metric for a name of the second form.

    Raises:
        UnknownNameError: there is no such metric.
        MetricError: a metric needs a package that is not installed, or a module cannot or may not be loaded.
    """
    metrics: dict[str, Metric] = {}
    for name in names:
        metric = _find(name, from_plugin) if isinstance(name, str) else name
        if not isinstance(metric, Metric):
            raise MetricError(f"{shortened(repr(metric))} is neither the name of a metric nor an lmtasks.Metric")
        check_metric(metric)
        metrics.setdefault(metric.name, metric)
    return tuple(metrics.values())


def check_metric(metric: Metric) -> None:
    """Check that a metric can be computed here.

    Raises:
        MetricError: it cannot; names the metric and the cause.
    """
    with guarded_call(f"{metric.label} cannot be used", MetricError):
        metric.check()


def check_references(metrics: Iterable[Metric], examples: Iterable[Example]) -> None:
    """Check that metrics accept as many references per example as the data has, before a model is loaded.

    Raises:
        MetricError: a metric does not.
    """
    most = max((len(example.references) for example in examples), default=0)
    for metric in metrics:
        with guarded_call(f"{metric.label} cannot be used", MetricError):
            metric.check_references(most)


@dataclass(frozen=True, slots=True)
class RefusedMetric(Metric):
    """A module of `evaluate` that a data file names: it is code, and is not loaded because a file names it."""

    name: str
    """With the prefix "evaluate:"."""
    refusal: str
    """Names the file, and says how to use the module."""

    def check(self) -> None:
        """Refuse to be used.

        Raises:
            MetricError: always.
        """
        raise MetricError(self.refusal)

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        """Refuse to be used.

        Raises:
            MetricError: always.
        """
        raise MetricError(self.refusal)


def metrics_in_file(names: Sequence[str], where: Callable[[int], str]) -> list[str | Metric]:
    """Return the metrics that a data file (a run folder, a YAML file) names, so that none of them loads code.

    A module of `evaluate` becomes a metric that refuses to be used.

    Args:
        names: as the file has them.
        where: returns the location of a name, given its index: the file, and the line if it is known.
    """
    requested = shortened(option("metrics", names))
    return [
        RefusedMetric(
            name,
            f"{where(index)}: {shortened(name)} is a module of Python code, which is never loaded because a file names"
            f" it; if you trust it, name it yourself: {requested}",
        )
        if name.startswith(PREFIX)
        else name
        for index, name in enumerate(names)
    ]


def _find(name: str, from_plugin: Callable[[str], Metric]) -> Metric:
    if name.startswith(PREFIX):
        return EvaluateMetric(name)
    if name in BUILTIN_METRICS:
        return BUILTIN_METRICS[name]
    if "/" in name:
        return from_plugin(name)
    raise unknown_name("metric", name, BUILTIN_METRICS)
