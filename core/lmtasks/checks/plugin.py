"""The checks of a plugin: `lmtasks plugins check`, and a plugin's own tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lmtasks.checks.result import CheckResult, SkippedCheckError, run_check
from lmtasks.checks.task import TaskUnderTest, right_answers, run_checks
from lmtasks.errors import DataError
from lmtasks.metrics import find_metrics, score_samples
from lmtasks.plugins import LoadedPlugin, Registry, is_plugin_file

IS_LOADED = "the plugin can be loaded"
"""The check that all others need."""
NOT_DEPRECATED = "it uses no deprecated API"
METRICS_WORK = "the metrics that it registers can be computed"
VERSION_IS_VALID = "the distribution's version is one that pip understands"


def check_plugin(name: str | Path, registry: Registry | None = None) -> list[CheckResult]:
    """Run all checks of a plugin and of its tasks.

    Args:
        name: the plugin's name or file.
        registry: loads it; None: a new one.

    Raises:
        UnknownNameError: there is no such plugin.
        PluginError: it cannot be loaded.
    """
    registry = registry or Registry()
    plugin = registry.task(str(name))[1] if is_plugin_file(str(name)) else registry.load(str(name))
    results = list(_plugin_checks(plugin))
    if plugin.metrics:
        discovered = plugin.discovered
        label = f'plugin "{discovered.name}" ({discovered.origin})'
        results.append(run_check(discovered.name, METRICS_WORK, label, lambda: _compute_metrics(plugin, registry)))
    for task in plugin.tasks.values():
        results += run_checks(task, registry, str(name))
    return results


def _plugin_checks(plugin: LoadedPlugin) -> Iterator[CheckResult]:
    from packaging.version import InvalidVersion, Version

    discovered = plugin.discovered
    yield CheckResult(task=discovered.name, check=IS_LOADED, status="ok")
    warnings = "; ".join(plugin.deprecated)
    yield CheckResult(
        task=discovered.name, check=NOT_DEPRECATED, status="failed" if warnings else "ok", detail=warnings
    )
    if discovered.file:
        return
    detail = ""
    try:
        Version(discovered.version)
    except InvalidVersion:
        detail = f'"{discovered.version}": write it as in "1.2.0" (PEP 440)'
    yield CheckResult(task=discovered.name, check=VERSION_IS_VALID, status="failed" if detail else "ok", detail=detail)


def _compute_metrics(plugin: LoadedPlugin, registry: Registry) -> None:
    """Compute a plugin's metrics for the right answers of one of its tasks; a metric that fails raises an error."""
    metrics = find_metrics([f"{plugin.discovered.name}/{name}" for name in plugin.metrics], registry.metric)
    for task in plugin.tasks.values():
        with suppress(SkippedCheckError, DataError):  # the checks of the task report them
            for dataset in TaskUnderTest(task, registry, None).datasets:
                if samples := right_answers(task, dataset):
                    score_samples(samples, metrics, resamples=0)
                    return
    raise SkippedCheckError("none of its tasks has right answers that can be read here")
