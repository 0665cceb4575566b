"""From a name to a task or metric: loads the one plugin that has it, and keeps what went wrong with others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import pluggy

from lmtasks import hookspecs
from lmtasks.errors import PluginError, unknown_name
from lmtasks.plugins.discovery import FoundPlugin, find_plugins
from lmtasks.task import Metric, Task

Named = TypeVar("Named", Task, Metric)


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A plugin that was imported and asked for what it offers."""

    found: FoundPlugin
    tasks: Mapping[str, Task]
    """By name, the one meant by the plugin's bare name first."""
    metrics: Mapping[str, Metric]
    """By bare name."""


def load_plugin(found: FoundPlugin) -> LoadedPlugin:
    """Import a plugin and ask it for its tasks and metrics.

    Each plugin has a manager of its own: what goes wrong with one is never blamed on another.

    Raises:
        PluginError: importing or asking failed, a hook is misspelt, or something returned is of the wrong type or
            name; names plugin, distribution and version, and keeps the cause.
    """
    where = f'plugin "{found.name}" ({found.origin})'
    try:
        module = found.entry_point.load()
    # A plugin is foreign code: whatever it raises, sys.exit included, hurts only who asked for it.
    except (Exception, SystemExit) as error:
        raise PluginError(f"{where} cannot be imported: {_cause(error)}") from error
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module, name=found.name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        known = ", ".join(sorted(vars(manager.hook)))
        raise PluginError(
            f"{where} has a hook that does not exist or match ({_cause(error)}); hooks: {known}"
        ) from error
    try:
        tasks = [task for returned in manager.hook.register_tasks() for task in returned]
        metrics = [metric for returned in manager.hook.register_metrics() for metric in returned]
    except (Exception, SystemExit) as error:
        raise PluginError(f"{where} failed when asked for its tasks and metrics: {_cause(error)}") from error
    if not manager.get_hookcallers(module):
        raise PluginError(f"{where} offers nothing: no function in {found.module} is marked @hookimpl")
    return LoadedPlugin(
        found=found,
        tasks=_by_name(where, "task", _checked_tasks(where, found, tasks)),
        metrics=_by_name(where, "metric", _checked_metrics(where, metrics)),
    )


class Registry:
    """Finds tasks and metrics by name among the installed plugins."""

    def __init__(self) -> None:
        """Read the installed plugins' names; nothing is imported yet."""
        self.found = find_plugins()
        self._loaded: dict[str, LoadedPlugin] = {}

    def load(self, name: str) -> LoadedPlugin:
        """Return the plugin of that name.

        Raises:
            UnknownNameError: no plugin has it.
            PluginError: two distributions have it, or it cannot be loaded.
        """
        if name not in self._loaded:
            if name not in self.found:
                raise unknown_name("plugin", name, self.found)
            plugins = self.found[name]
            if len(plugins) > 1:
                names = " and ".join(plugin.origin for plugin in plugins)
                raise PluginError(f'plugin "{name}" is claimed by {names}; uninstall all but one')
            self._loaded[name] = load_plugin(plugins[0])
        return self._loaded[name]

    def load_all(self) -> tuple[list[LoadedPlugin], dict[str, PluginError]]:
        """Load every plugin; return those that work, and by name why others do not."""
        loaded, broken = [], {}
        for name in self.found:
            try:
                loaded.append(self.load(name))
            except PluginError as error:
                broken[name] = error
        return loaded, broken

    def task(self, name: str) -> tuple[Task, LoadedPlugin]:
        """Return the task of that name and its plugin; a plugin's bare name means its first task.

        Raises:
            UnknownNameError: there is no such task.
            PluginError: the plugin that would have it cannot be loaded.
        """
        plugin_name = name.partition("/")[0]
        if plugin_name not in self.found:
            raise unknown_name("task", name, self._known_tasks())
        plugin = self.load(plugin_name)
        if name in plugin.tasks:
            return plugin.tasks[name], plugin
        if name == plugin_name and plugin.tasks:
            return next(iter(plugin.tasks.values())), plugin
        raise unknown_name("task", name, plugin.tasks)

    def metric(self, name: str) -> Metric:
        """Return a plugin's metric by its full name, "<plugin>/<metric>".

        Raises:
            UnknownNameError: there is no such plugin or metric.
            PluginError: the plugin cannot be loaded.
        """
        plugin_name, _, metric_name = name.partition("/")
        metrics = self.load(plugin_name).metrics
        if metric_name not in metrics:
            raise unknown_name(f'metric of plugin "{plugin_name}"', metric_name, metrics)
        return metrics[metric_name]

    def _known_tasks(self) -> list[str]:
        return [task for plugin in self.load_all()[0] for task in plugin.tasks]


def _checked_tasks(where: str, found: FoundPlugin, tasks: Iterable[object]) -> Iterable[Task]:
    for task in tasks:
        if not isinstance(task, Task):
            raise PluginError(
                f"{where}: register_tasks returned {type(task).__name__}, expected a list of lmtasks.Task"
            )
        if task.name.partition("/")[0] != found.name:
            raise PluginError(
                f'{where}: a task is named "{task.name}", expected "{found.name}" or "{found.name}/<variant>"'
            )
        yield task


def _checked_metrics(where: str, metrics: Iterable[object]) -> Iterable[Metric]:
    for metric in metrics:
        if not isinstance(metric, Metric):
            raise PluginError(f"{where}: register_metrics returned {type(metric).__name__}, which is no lmtasks.Metric")
        yield metric


def _by_name(where: str, kind: str, items: Iterable[Named]) -> dict[str, Named]:
    named: dict[str, Named] = {}
    for item in items:
        if item.name in named:
            raise PluginError(f'{where}: two of its {kind}s are named "{item.name}"')
        named[item.name] = item
    return named


def _cause(error: BaseException) -> str:
    text = " ".join(str(error).split())
    place = ""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None:
        place = f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})"
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"
