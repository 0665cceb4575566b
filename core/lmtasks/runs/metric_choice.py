"""Which metrics runs were scored with, so that they are scored again in the same way."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lmtasks.errors import RunError, UnknownNameError, option
from lmtasks.metrics import find_metrics, metrics_in_file
from lmtasks.plugins import Registry
from lmtasks.runs.folder import RECORD, Run
from lmtasks.task import Metric, as_tuple

log = logging.getLogger("lmtasks.runs")


def metrics_of_runs(runs: Sequence[Run], asked: Sequence[str] | None, registry: Registry) -> tuple[Metric, ...]:
    """Return the metrics that are asked for, or those that all the runs were scored with.

    What a run folder names is data: it loads no module of `evaluate` and no file of a plugin.

    Args:
        runs: at least one.
        asked: names; None or none: what the runs recorded.
        registry: finds the metrics of plugins.

    Raises:
        RunError: the runs have no metric in common.
        UnknownNameError: there is no such metric.
        MetricError: a run was scored with a module of `evaluate`, and it was not asked for.
    """
    if asked:
        return find_metrics(as_tuple(asked), registry.metric)
    recorded = [_recorded_metrics(run, registry) for run in runs]
    common = [name for name in recorded[0] if all(name in others for others in recorded)]
    left_out = sorted({name for own in recorded for name in own} - set(common))
    if left_out and common:
        log.warning("not all runs were scored with %s; name metrics with %s", ", ".join(left_out), option("metrics"))
    if not common and len(runs) == 1:
        raise RunError(f"{runs[0].path}: it was scored with no metric; name some with {option('metrics')}")
    if not common:
        used = "; ".join(f"{run.path}: {', '.join(own) or 'none'}" for run, own in zip(runs, recorded, strict=True))
        raise RunError(f"no metric in common ({used}); name some with {option('metrics')}")
    try:
        return find_metrics(metrics_in_file(common, lambda _: str(runs[0].path / RECORD)), registry.metric)
    except UnknownNameError as error:
        raise UnknownNameError(
            f"{runs[0].path}: {error} The run was scored from Python; name others with {option('metrics')}"
        ) from error


def _recorded_metrics(run: Run, registry: Registry) -> list[str]:
    recorded: list[str] | None = run.record.get("metrics")
    if recorded is None:  # runs of the first version do not say
        task, _ = registry.task_of_plugin(run.record["task"]["name"])
        return [metric if isinstance(metric, str) else metric.name for metric in task.metrics]
    return recorded
