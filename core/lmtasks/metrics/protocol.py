"""The optional members of a metric, each asked for in one place."""

from __future__ import annotations

from lmtasks.errors import MetricError
from lmtasks.isolation import guarded_call
from lmtasks.task import Metric


def label_of(metric: Metric) -> str:
    """Return what messages call a metric: its label, where it has one, or its name."""
    label: str | None = getattr(metric, "label", None)
    return label or f'metric "{metric.name}"'


def check_metric(metric: Metric) -> None:
    """Call a metric's `check()`, where it has one: it raises if the metric cannot be computed here.

    Raises:
        MetricError: it raised; names the metric and the cause.
    """
    with guarded_call(f"{label_of(metric)} cannot be used", MetricError):
        check = getattr(metric, "check", None)
        if check is not None:
            check()
