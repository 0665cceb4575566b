"""From names to metrics: core's own, those of plugins, and modules of `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lmtasks.errors import MetricError, option, unknown_name
from lmtasks.isolation import shortened
from lmtasks.metrics.answers import EXACT_MATCH, TOKEN_F1
from lmtasks.metrics.evaluate_bridge import PREFIX, EvaluateMetric
from lmtasks.metrics.likelihood import Likelihood
from lmtasks.metrics.protocol import check_metric
from lmtasks.metrics.rouge import Rouge
from lmtasks.metrics.sacrebleu_metrics import bleu, chrf, ter
from lmtasks.task import Example, Measurement, Metric, Sample

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
        Rouge("rouge:char", char=True),
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
        names: bare names of core's own, "<plugin>/<metric>", "evaluate:<path or id>", or metrics themselves. The
            last kind of name loads code: names that stand in a file pass `metrics_in_file` first.
        from_plugin: finds the second kind.

    Raises:
        UnknownNameError: there is no such metric.
        MetricError: one needs a package that is not installed, or is a module that cannot or may not be loaded.
    """
    found: dict[str, Metric] = {}
    for name in names:
        metric = name if not isinstance(name, str) else _find(name, from_plugin)
        if not isinstance(metric, Metric):
            raise MetricError(f"{shortened(repr(metric))} is neither the name of a metric nor an lmtasks.Metric")
        check_metric(metric)
        found.setdefault(metric.name, metric)
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class ModuleInFile:
    """A module of `evaluate` that a file of data names: it is code, and is not loaded from there."""

    name: str
    """With the prefix."""
    refusal: str
    """Names the file, and says how to ask for the module."""

    def check(self) -> None:
        """Refuse.

        Raises:
            MetricError: always.
        """
        raise MetricError(self.refusal)

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        """Refuse, as `check` does."""
        raise MetricError(self.refusal)


def metrics_in_file(names: Sequence[str], where: Callable[[int], str]) -> list[str | Metric]:
    """Return metrics that a file of data names (a run folder, a YAML file), so that none of them loads code.

    A module of `evaluate` becomes a metric that refuses to be used; whoever names other metrics never meets it.

    Args:
        names: as they stand in the file.
        where: returns the place of a name, by its index, for messages: the file, and the line if it is known.
    """
    asked = shortened(option("metrics", names))
    return [
        ModuleInFile(
            name,
            f"{where(index)}: {shortened(name)} is a module of Python code, which is never loaded because a file names"
            f" it; if you trust it, name it yourself: {asked}",
        )
        if name.startswith(PREFIX)
        else name
        for index, name in enumerate(names)
    ]


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
