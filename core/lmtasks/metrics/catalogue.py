"""From names to metrics: core's own, those of plugins, and modules of `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lmtasks.errors import unknown_name
from lmtasks.metrics.answers import EXACT_MATCH, TOKEN_F1
from lmtasks.metrics.bridge import PREFIX, EvaluateMetric
from lmtasks.metrics.likelihood import Likelihood
from lmtasks.metrics.rouge import Rouge
from lmtasks.metrics.translation import bleu, chrf, ter
from lmtasks.task import Example, Metric

CORE: dict[str, Metric] = {
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
        EXACT_MATCH,
        TOKEN_F1,
        Likelihood("loglikelihood"),
        Likelihood("perplexity"),
    )
}
"""The metrics that have bare names; what follows a colon is a setting."""


def find_metrics(names: Iterable[str | Metric], from_plugin: Callable[[str], Metric]) -> tuple[Metric, ...]:
    """Turn names into metrics.

    Args:
        names: bare names of core's own, "<plugin>/<metric>", "evaluate:<path or id>", or metrics themselves.
        from_plugin: finds the second kind.

    Raises:
        UnknownNameError: there is no such metric.
        MetricError: one needs a package that is not installed, or is a module that cannot be loaded.
    """
    found: dict[str, Metric] = {}
    for name in names:
        metric = name if not isinstance(name, str) else _find(name, from_plugin)
        check = getattr(metric, "check", None)
        if check is not None:
            check()
        found.setdefault(metric.name, metric)
    return tuple(found.values())


def check_references(metrics: Iterable[Metric], examples: Iterable[Example]) -> None:
    """See that metrics take as many references per example as the data has, before a model is loaded.

    Raises:
        MetricError: one does not.
    """
    most = max((len(example.references) for example in examples), default=0)
    for metric in metrics:
        if isinstance(metric, EvaluateMetric):
            metric.check_references(most)


def _find(name: str, from_plugin: Callable[[str], Metric]) -> Metric:
    if name.startswith(PREFIX):
        return EvaluateMetric(name)
    if name in CORE:
        return CORE[name]
    if "/" in name:
        return from_plugin(name)
    raise unknown_name("metric", name, CORE)
