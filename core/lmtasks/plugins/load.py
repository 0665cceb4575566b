"""Loads one plugin: imports it, calls its hooks, and checks what they return."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TypeVar

import pluggy

from lmtasks import hookspecs
from lmtasks.errors import DeprecatedWarning, PluginError
from lmtasks.isolation import cause, guarded_call
from lmtasks.plugins.discovery import DiscoveredPlugin
from lmtasks.task import Measurement, Metric, Sample, Task

log = logging.getLogger("lmtasks.plugins")
Named = TypeVar("Named", Task, Metric)


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A plugin that was imported, with its tasks and metrics."""

    discovered: DiscoveredPlugin
    tasks: Mapping[str, Task]
    """By name; the first is the one that the plugin's bare name means."""
    metrics: Mapping[str, Metric]
    """By name, without the plugin's."""
    seconds: float
    """Time that importing it and calling its hooks took."""
    deprecated: tuple[str, ...] = ()
    """Warnings about deprecated parts of the interface that it uses."""


class PluginMetric(Metric):
    """A plugin's metric, with the name by which it is found again and the label that messages use."""

    def __init__(self, metric: Metric, name: str, origin: str) -> None:
        """Wrap a metric.

        Args:
            metric: as the plugin made it.
            name: replaces its own.
            origin: says in the label where it comes from.
        """
        self._metric = metric
        self.name = name
        self._label = f'metric "{name}" {origin}'

    @property
    def label(self) -> str:
        """Name and origin, for messages."""
        return self._label

    def check(self) -> None:
        """Check as the plugin's metric does; the caller isolates it."""
        self._metric.check()

    def check_references(self, most: int) -> None:
        """Check as the plugin's metric does; the caller isolates it."""
        self._metric.check_references(most)

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        """Measure as the plugin's metric does; the caller isolates it."""
        return self._metric.measure(samples, language)


def load_plugin(plugin: DiscoveredPlugin) -> LoadedPlugin:
    """Import a plugin and call its hooks.

    Each plugin has a plugin manager of its own, so that an error of one is never reported for another.

    Raises:
        PluginError: importing or a hook failed, a hook is misspelt, or a returned value has the wrong type or name;
            names plugin, distribution and version, and keeps the cause.
    """
    where = f'plugin "{plugin.name}" ({plugin.origin})'
    _check_version(where, plugin)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeprecatedWarning)
        loaded = _collect_hooks(where, plugin)
    for warning in caught:
        if not issubclass(warning.category, DeprecatedWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    deprecated = tuple(
        dict.fromkeys(str(warning.message) for warning in caught if issubclass(warning.category, DeprecatedWarning))
    )
    for message in deprecated:
        log.warning("%s: %s", where, message)
    return replace(loaded, deprecated=deprecated)


def _collect_hooks(where: str, plugin: DiscoveredPlugin) -> LoadedPlugin:
    """Import a plugin and call its hooks."""
    start = time.perf_counter()
    with guarded_call(f"{where} cannot be imported"):
        module = plugin.load()
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    hooks = sorted(vars(manager.hook))
    try:
        manager.register(module, name=plugin.name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(
            f"{where} has a hook that does not exist or match ({cause(error)}); hooks: {', '.join(hooks)}"
        ) from error
    except Exception as error:  # raised by the module while pluggy reads its attributes
        raise PluginError(f"{where} cannot be searched for hooks: {cause(error)}") from error
    tasks = _returned(where, manager.hook.register_tasks)
    metrics = _returned(where, manager.hook.register_metrics)
    if not manager.get_hookcallers(module):
        raise PluginError(f"{where} offers nothing: no function in {plugin.module} is marked @hookimpl")
    if not tasks and not metrics:
        raise PluginError(f"{where} offers nothing: its hooks return neither tasks nor metrics")
    if plugin.file:
        plugin = replace(plugin, name=_file_plugin_name(plugin, tasks))
    return LoadedPlugin(
        discovered=plugin,
        tasks=_by_name(where, "task", _checked_tasks(where, plugin, tasks)),
        metrics=_by_name(where, "metric", _checked_metrics(where, plugin, metrics)),
        seconds=time.perf_counter() - start,
    )


def _check_version(where: str, plugin: DiscoveredPlugin) -> None:
    """Refuse a plugin that was made for another version of lmtasks, before it fails in some other way."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    for text in plugin.requires:
        try:
            needed = Requirement(text)
        except InvalidRequirement:
            continue  # the installer's concern
        if canonicalize_name(needed.name) != hookspecs.PROJECT or (
            needed.marker and not needed.marker.evaluate({"extra": ""})
        ):
            continue
        installed = version(hookspecs.PROJECT)
        if not needed.specifier.contains(installed, prereleases=True):
            raise PluginError(
                f"{where} needs lmtasks{needed.specifier}, and this is {installed}; install another version of one of"
                " them"
            )


def _file_plugin_name(plugin: DiscoveredPlugin, tasks: Iterable[object]) -> str:
    """Return the name that a file's tasks begin with, or the file's own if it has metrics only."""
    return next((task.name.partition("/")[0] for task in tasks if isinstance(task, Task)), plugin.name)


def _returned(where: str, hook: pluggy.HookCaller) -> list[object]:
    """Call a plugin's hook, if it has it, and return what it returned as a list."""
    items: list[object] = []
    # Each implementation is called here: pluggy drops None, so that a hook that forgets to return would pass.
    for implementation in hook.get_hookimpls():
        with guarded_call(f"{where}: {hook.name} failed"):
            returned = implementation.function()
            if listed := isinstance(returned, Iterable) and not isinstance(returned, (str, bytes, Mapping)):
                items.extend(returned)
        if not listed:
            type_name = "None" if returned is None else type(returned).__name__
            expected = "Task" if hook.name == "register_tasks" else "Metric"
            raise PluginError(f"{where}: {hook.name} returned {type_name}, expected a list of lmtasks.{expected}")
    return items


def _checked_tasks(where: str, plugin: DiscoveredPlugin, tasks: Iterable[object]) -> Iterable[Task]:
    for task in tasks:
        if not isinstance(task, Task):
            raise PluginError(
                f"{where}: register_tasks returned {type(task).__name__}, expected a list of lmtasks.Task"
            )
        if task.name.partition("/")[0] != plugin.name:
            raise PluginError(
                f'{where}: a task is named "{task.name}", expected "{plugin.name}" or "{plugin.name}/<variant>"'
            )
        task = replace(task, origin=plugin.origin)
        metrics = tuple(
            metric if isinstance(metric, str) else PluginMetric(*_named(where, metric), f"of {task.label}")
            for metric in task.metrics
        )
        yield replace(task, metrics=metrics)


def _checked_metrics(where: str, plugin: DiscoveredPlugin, metrics: Iterable[object]) -> Iterable[Metric]:
    for metric in metrics:
        yield PluginMetric(*_named(where, metric), f"({plugin.origin})")


def _named(where: str, metric: object) -> tuple[Metric, str]:
    """Return a metric and its name; reading the name runs the plugin's code."""
    if not isinstance(metric, Metric):
        raise PluginError(f"{where}: a metric is {type(metric).__name__}, which is not a subclass of lmtasks.Metric")
    name: object = None
    with guarded_call(f"{where}: the name of a metric cannot be read"):
        name = metric.name
    if not isinstance(name, str) or not name:
        raise PluginError(f"{where}: the name of metric {type(metric).__name__} is {name!r}, expected text")
    return metric, name


def _by_name(where: str, kind: str, items: Iterable[Named]) -> dict[str, Named]:
    named: dict[str, Named] = {}
    for item in items:
        if item.name in named:
            raise PluginError(f'{where}: two of its {kind}s are named "{item.name}"')
        named[item.name] = item
    return named
