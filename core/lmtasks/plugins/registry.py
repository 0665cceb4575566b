"""From a name to a task or metric: loads the one plugin that has it, and keeps what went wrong with others."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pluggy

from lmtasks import hookspecs
from lmtasks.errors import PluginError, unknown_name
from lmtasks.plugins.discovery import FoundPlugin, find_plugins
from lmtasks.task import Metric, Task

Named = TypeVar("Named", Task, Metric)
_MACHINERY = (
    "<frozen importlib",
    *(str(Path(file).parent) for file in (importlib.__file__, pluggy.__file__, __file__)),
)
"""Files that every failing import or hook has on its stack."""


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
    hooks = sorted(vars(manager.hook))
    try:
        manager.register(module, name=found.name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(
            f"{where} has a hook that does not exist or match ({_cause(error)}); hooks: {', '.join(hooks)}"
        ) from error
    tasks = _returned(where, manager.hook.register_tasks)
    metrics = _returned(where, manager.hook.register_metrics)
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
        if not plugin.tasks:
            raise unknown_name("task", name, self._known_tasks())
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


def _returned(where: str, hook: pluggy.HookCaller) -> list[object]:
    """Call a plugin's hook, if it has it, and return what it returned as a list."""
    items: list[object] = []
    # Called one by one: through pluggy, None is taken for no answer, and a hook that forgets to return passes.
    for implementation in hook.get_hookimpls():
        try:
            returned = implementation.function()
            items += returned if isinstance(returned, Iterable) else ()
        except (Exception, SystemExit) as error:
            raise PluginError(f"{where}: {hook.name} failed: {_cause(error)}") from error
        if not isinstance(returned, Iterable):
            kind = "None" if returned is None else type(returned).__name__
            wanted = "Task" if hook.name == "register_tasks" else "Metric"
            raise PluginError(f"{where}: {hook.name} returned {kind}, expected a list of lmtasks.{wanted}")
    return items


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
    """Return what was raised and where in the plugin; not where in Python or pluggy, which is no news."""
    text = " ".join(str(error).split())
    files = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [file for file in files if not any(part in file[0] for part in _MACHINERY)]
    place = f" ({own[-1][0]}, line {own[-1][1]})" if own else ""
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"
