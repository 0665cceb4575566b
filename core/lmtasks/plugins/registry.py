"""Tasks and metrics by name: loads only the plugin that has them, and keeps the errors of those that fail."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lmtasks import hookspecs
from lmtasks.errors import PluginError, UsageError, unknown_name
from lmtasks.plugins.discovery import (
    DiscoveredPlugin,
    disabled_plugins,
    find_file,
    find_plugins,
    is_plugin_file,
    named_files,
)
from lmtasks.plugins.load import LoadedPlugin, PluginMetric, load_plugin
from lmtasks.task import Metric, Task


class Registry:
    """Finds tasks and metrics by name among the installed plugins, and in files.

    A command or a call of the Python API makes one and passes it on, so that each plugin is loaded once.
    """

    def __init__(self) -> None:
        """Read the names of the installed plugins, without importing any, and load the files that the user named.

        A file replaces an installed plugin of its name, because the user named it.
        """
        self.discovered = find_plugins()
        """Plugins by name; more than one under a name is a conflict."""
        self.shadowed: list[tuple[DiscoveredPlugin, PluginError]] = []
        """Plugins that have the name of one that comes with lmtasks, which keeps it."""
        for name, plugins in self.discovered.items():
            first_party = [plugin for plugin in plugins if plugin.distribution == hookspecs.PROJECT]
            if len(first_party) == 1:
                self.discovered[name] = first_party
                self.shadowed += [(plugin, _name_conflict(plugin)) for plugin in plugins if plugin not in first_party]
        self.disabled = {name: self.discovered.pop(name) for name in disabled_plugins() if name in self.discovered}
        self._loaded: dict[str, LoadedPlugin] = {}
        self._broken: dict[str, PluginError] = {}
        self._files: dict[str, list[LoadedPlugin]] = {}
        for path in named_files():
            try:
                self._add_file(path)
            except PluginError as error:
                self._broken[str(path)] = error

    def load(self, name: str) -> LoadedPlugin:
        """Return the plugin of that name.

        Raises:
            UnknownNameError: no plugin has it.
            PluginError: two distributions have it, it is disabled, or it cannot be loaded.
        """
        if name in self._loaded:
            return self._loaded[name]
        if name in self._broken:
            raise self._broken[name]
        if name in self.disabled and name not in self.discovered:
            raise PluginError(f'plugin "{name}" is disabled by --no-plugin or LMTASKS_DISABLE_PLUGINS')
        if name not in self.discovered:
            raise unknown_name("plugin", name, self.discovered)
        plugins = self.discovered[name]
        try:
            if len(plugins) > 1:
                origins = " and ".join(plugin.origin for plugin in plugins)
                remedy = "name one of them" if plugins[0].file else "uninstall all but one"
                raise PluginError(f'plugin "{name}" is claimed by {origins}; {remedy}')
            self._loaded[name] = load_plugin(plugins[0])
        except PluginError as error:
            self._broken[name] = error
            raise
        return self._loaded[name]

    def load_all(self) -> tuple[list[LoadedPlugin], dict[str, PluginError]]:
        """Load every plugin; return those that work, and the errors of the others by name (or file)."""
        loaded = []
        broken = {name: error for name, error in self._broken.items() if name not in self.discovered}
        for name in self.discovered:
            try:
                loaded.append(self.load(name))
            except PluginError as error:
                broken[name] = error
        return loaded, broken

    def task(self, name: str) -> tuple[Task, LoadedPlugin]:
        """Return the task of that name and its plugin; a plugin's bare name, or a file, means its first task.

        Raises:
            UnknownNameError: there is no such task.
            PluginError: its plugin, or a file that the user named, cannot be loaded.
        """
        if not is_plugin_file(name):
            return self.task_of_plugin(name)
        self._refuse_broken_files()
        plugin = self._add_file(Path(name))
        if not plugin.tasks:
            raise PluginError(f"{name}: offers metrics and no task; name the file with --plugin or LMTASKS_PLUGINS")
        return next(iter(plugin.tasks.values())), plugin

    def task_of_plugin(self, name: str) -> tuple[Task, LoadedPlugin]:
        """Return the task of that name and its plugin; unlike `task`, load no file.

        It is for names that a data file holds: only plugins that are installed, or that the user named, are imported.

        Raises:
            UnknownNameError: there is no such task.
            PluginError: its plugin cannot be loaded.
        """
        self._refuse_broken_files()
        plugin_name = name.partition("/")[0]
        if plugin_name not in self.discovered and plugin_name not in self.disabled:
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
        self._refuse_broken_files()
        plugin_name, _, metric_name = name.partition("/")
        plugin = self.load(plugin_name)
        if metric_name not in plugin.metrics:
            raise unknown_name(f'metric of plugin "{plugin_name}"', metric_name, plugin.metrics)
        return PluginMetric(plugin.metrics[metric_name], name, f"({plugin.discovered.origin})")

    def _add_file(self, path: Path) -> LoadedPlugin:
        """Load a file as a plugin, under the name that its tasks have; a file that was loaded is not executed again."""
        discovered = find_file(path)
        for plugins in self._files.values():
            for plugin in plugins:
                if (plugin.discovered.file, plugin.discovered.origin) == (discovered.file, discovered.origin):
                    return plugin
        plugin = load_plugin(discovered)
        name = plugin.discovered.name
        others = [other for other in self._files.get(name, ()) if other.discovered.origin != plugin.discovered.origin]
        self._files[name] = [*others, plugin]
        self.discovered[name] = [other.discovered for other in self._files[name]]
        if others:
            self._loaded.pop(name, None)
        else:
            self._loaded[name] = plugin
        return plugin

    def _refuse_broken_files(self) -> None:
        for path in named_files():
            if str(path) in self._broken:
                raise self._broken[str(path)]

    def _known_tasks(self) -> list[str]:
        return [task for plugin in self.load_all()[0] for task in plugin.tasks]


def _name_conflict(plugin: DiscoveredPlugin) -> PluginError:
    return PluginError(
        f'plugin "{plugin.name}" ({plugin.origin}) has the name of one that lmtasks brings, and is left out; its entry'
        " point needs another"
    )


def find_task(
    registry: Registry, task: str | Task, parameters: Mapping[str, object] | None = None
) -> tuple[Task, LoadedPlugin | None]:
    """Return a task with its parameters set, and the plugin that it comes from; None for a task from Python.

    Args:
        registry: looks the name up.
        task: its name, a file, or a Task.
        parameters: values to set.

    Raises:
        UnknownNameError: there is no such task or parameter.
        UsageError: a parameter does not allow a value.
        PluginError: the plugin cannot be loaded.
    """
    resolved, plugin = registry.task(task) if isinstance(task, str) else (task, None)
    try:
        return resolved.with_settings(parameters or {}), plugin
    except KeyError as error:
        raise unknown_name(f'parameter of task "{resolved.name}"', error.args[0], resolved.parameters) from None
    except ValueError as error:
        raise UsageError(str(error)) from None
