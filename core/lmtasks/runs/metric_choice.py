"""The metrics that runs were scored with, so that they are scored again in the same way."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lmtasks.errors import RunError, UnknownNameError, option
from lmtasks.metrics import find_metrics, metrics_in_file
from lmtasks.plugins import Registry
from lmtasks.runs.folder import RECORD, Run
from lmtasks.task import Metric, as_tuple

log = logging.getLogger("lmtasks.runs")


def metrics_of_runs(runs: Sequence[Run], requested: Sequence[str] | None, registry: Registry) -> tuple[Metric, ...]:
    """Return the requested metrics, or those that all the runs were scored with.

    A name in a run folder is data: it loads no module of `evaluate` and no file of a plugin.

    Args:
        runs: at least one.
        requested: names; None or empty: what the runs recorded.
        registry: finds the metrics of plugins.

    Raises:
        RunError: the runs have no metric in common.
        UnknownNameError: there is no such metric.
        MetricError: a run was scored with a module of `evaluate`, and it was not requested.
    """
    if requested:
        return find_metrics(as_tuple(requested), registry.metric)
    recorded = [run.record.metrics for run in runs]
    common = [name for name in recorded[0] if all(name in others for others in recorded)]
    left_out = sorted({name for names in recorded for name in names} - set(common))
    if left_out and common:
        log.warning(
            "not all runs were scored with %s; name the metrics to compare with %s",
            ", ".join(left_out),
            option("metrics"),
        )
    if not common and len(runs) == 1:
        raise RunError(f"{runs[0].path}: it was scored with no metric; name some with {option('metrics')}")
    if not common:
        used = "; ".join(f"{run.path}: {', '.join(names) or 'none'}" for run, names in zip(runs, recorded, strict=True))
        raise RunError(
            f"no metric in common ({used}); name some with {option('metrics')}, and all runs are scored with them"
        )
    try:
        return find_metrics(metrics_in_file(common, lambda _: str(runs[0].path / RECORD)), registry.metric)
    except UnknownNameError as error:
        raise UnknownNameError(
            f"{runs[0].path}: {error} The run was scored from Python; name other metrics with {option('metrics')}"
        ) from error
