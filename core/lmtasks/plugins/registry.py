"""From a name to a task or metric: loads the one plugin that has it, and keeps what went wrong with others."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar, cast

import pluggy

from lmtasks import hookspecs
from lmtasks.errors import DeprecatedWarning, PluginError, UsageError, unknown_name
from lmtasks.isolation import cause, guarded_call
from lmtasks.plugins.discovery import (
    DiscoveredPlugin,
    disabled_plugins,
    find_file,
    find_plugins,
    is_plugin_file,
    named_files,
)
from lmtasks.task import Measurement, Metric, Sample, Task

log = logging.getLogger("lmtasks.plugins")
Named = TypeVar("Named", Task, Metric)


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A plugin that was imported and asked for what it offers."""

    found: DiscoveredPlugin
    tasks: Mapping[str, Task]
    """By name, the one meant by the plugin's bare name first."""
    metrics: Mapping[str, Metric]
    """By bare name."""
    seconds: float
    """That importing and asking took."""
    deprecated: tuple[str, ...] = ()
    """What it uses of the interface that will go."""


class PluginMetric:
    """A plugin's metric, with what messages call it and the name by which it is found again."""

    def __init__(self, metric: Metric, name: str, of: str) -> None:
        """Take the metric, its name and where it comes from."""
        self._metric = metric
        self.name = name
        self.label = f'metric "{name}" {of}'

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        """Measure samples as the plugin does."""
        return self._metric.measure(samples, language)

    def check(self) -> None:
        """Check as the plugin does; the caller isolates it, as it does `measure`."""
        check = getattr(self._metric, "check", None)
        if check is not None:
            check()


def load_plugin(found: DiscoveredPlugin) -> LoadedPlugin:
    """Import a plugin and ask it for its tasks and metrics.

    Each plugin has a manager of its own: what goes wrong with one is never blamed on another.

    Raises:
        PluginError: importing or asking failed, a hook is misspelt, or something returned is of the wrong type or
            name; names plugin, distribution and version, and keeps the cause.
    """
    where = f'plugin "{found.name}" ({found.origin})'
    _check_version(where, found)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", DeprecatedWarning)
        loaded = _ask(where, found)
    for warning in told:
        if not issubclass(warning.category, DeprecatedWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    deprecated = tuple(dict.fromkeys(str(one.message) for one in told if issubclass(one.category, DeprecatedWarning)))
    for message in deprecated:
        log.warning("%s: %s", where, message)
    return replace(loaded, deprecated=deprecated)


def _ask(where: str, found: DiscoveredPlugin) -> LoadedPlugin:
    """Import a plugin and call its hooks."""
    begun = time.perf_counter()
    with guarded_call(f"{where} cannot be imported"):
        module = found.load()
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    hooks = sorted(vars(manager.hook))
    try:
        manager.register(module, name=found.name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(
            f"{where} has a hook that does not exist or match ({cause(error)}); hooks: {', '.join(hooks)}"
        ) from error
    except Exception as error:  # of the module, when it is looked through
        raise PluginError(f"{where} cannot be looked through for hooks: {cause(error)}") from error
    tasks = _returned(where, manager.hook.register_tasks)
    metrics = _returned(where, manager.hook.register_metrics)
    if not manager.get_hookcallers(module):
        raise PluginError(f"{where} offers nothing: no function in {found.module} is marked @hookimpl")
    if not tasks and not metrics:
        raise PluginError(f"{where} offers nothing: its hooks return neither tasks nor metrics")
    if found.file:
        found = replace(found, name=_name_of_file(found, tasks))
    return LoadedPlugin(
        found=found,
        tasks=_by_name(where, "task", _checked_tasks(where, found, tasks)),
        metrics=_by_name(where, "metric", _checked_metrics(where, found, metrics)),
        seconds=time.perf_counter() - begun,
    )


class Registry:
    """Finds tasks and metrics by name among the installed plugins, and in files."""

    def __init__(self) -> None:
        """Read the names of the installed plugins, of which none is imported, and the files that were named.

        A file takes the place of an installed plugin of its name, for it was asked for.
        """
        self.found = find_plugins()
        self.refused: list[tuple[DiscoveredPlugin, PluginError]] = []
        """What claims the name of a plugin that lmtasks itself brings: that one keeps it."""
        for name, plugins in self.found.items():
            own = [plugin for plugin in plugins if plugin.distribution == hookspecs.PROJECT]
            if len(own) == 1:
                self.found[name] = own
                self.refused += [(other, _taken(other)) for other in plugins if other is not own[0]]
        self.disabled = {name: self.found.pop(name) for name in disabled_plugins() if name in self.found}
        self._loaded: dict[str, LoadedPlugin] = {}
        self._broken: dict[str, PluginError] = {}
        self._files: dict[str, list[DiscoveredPlugin]] = {}
        for path in named_files():
            try:
                self._add_file(path)
            except PluginError as error:
                self._broken[str(path)] = error
        self.found |= self._files

    def load(self, name: str) -> LoadedPlugin:
        """Return the plugin of that name.

        Raises:
            UnknownNameError: no plugin has it.
            PluginError: two distributions have it, it is switched off, or it cannot be loaded.
        """
        if name in self._loaded:
            return self._loaded[name]
        if name in self._broken:
            raise self._broken[name]
        if name in self.disabled and name not in self.found:
            raise PluginError(f'plugin "{name}" is disabled by --no-plugin or LMTASKS_DISABLE_PLUGINS')
        if name not in self.found:
            raise unknown_name("plugin", name, self.found)
        plugins = self.found[name]
        try:
            if len(plugins) > 1:
                names = " and ".join(plugin.origin for plugin in plugins)
                remedy = "name one of them" if plugins[0].file else "uninstall all but one"
                raise PluginError(f'plugin "{name}" is claimed by {names}; {remedy}')
            self._loaded[name] = load_plugin(plugins[0])
        except PluginError as error:
            self._broken[name] = error
            raise
        return self._loaded[name]

    def load_all(self) -> tuple[list[LoadedPlugin], dict[str, PluginError]]:
        """Load every plugin; return those that work, and by name (or file) why others do not."""
        loaded = []
        broken = {name: error for name, error in self._broken.items() if name not in self.found}
        for name in self.found:
            try:
                loaded.append(self.load(name))
            except PluginError as error:
                broken[name] = error
        return loaded, broken

    def task(self, name: str) -> tuple[Task, LoadedPlugin]:
        """Return the task of that name and its plugin; a plugin's bare name, or a file, means its first task.

        Raises:
            UnknownNameError: there is no such task.
            PluginError: the plugin that would have it cannot be loaded, or a file that was named cannot.
        """
        if not is_plugin_file(name):
            return self.task_of_plugin(name)
        self._refuse_broken_files()
        plugin = self._add_file(Path(name))
        if not plugin.tasks:
            raise PluginError(f"{name}: offers metrics and no task; name the file with --plugin or LMTASKS_PLUGINS")
        return next(iter(plugin.tasks.values())), plugin

    def task_of_plugin(self, name: str) -> tuple[Task, LoadedPlugin]:
        """Return the task of that name and its plugin; unlike `task`, take no name for that of a file.

        For names that stand in a file of data: only plugins that are installed, or that the user named, are imported.

        Raises:
            UnknownNameError: there is no such task.
            PluginError: the plugin that would have it cannot be loaded.
        """
        self._refuse_broken_files()
        plugin_name = name.partition("/")[0]
        if plugin_name not in self.found and plugin_name not in self.disabled:
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
        return PluginMetric(plugin.metrics[metric_name], name, f"({plugin.found.origin})")

    def _add_file(self, path: Path) -> LoadedPlugin:
        """Load a file as a plugin, under the name that its tasks have."""
        plugin = load_plugin(find_file(path))
        name = plugin.found.name
        same = [other for other in self._files.get(name, ()) if other.origin != plugin.found.origin]
        self._files[name] = self.found[name] = [*same, plugin.found]
        if same:
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


def _check_version(where: str, found: DiscoveredPlugin) -> None:
    """Refuse a plugin that was made for another lmtasks, before it fails in some other way."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    for text in found.requires:
        try:
            needed = Requirement(text)
        except InvalidRequirement:
            continue  # an installer's concern
        if canonicalize_name(needed.name) != hookspecs.PROJECT or (
            needed.marker and not needed.marker.evaluate({"extra": ""})
        ):
            continue
        have = version(hookspecs.PROJECT)
        if not needed.specifier.contains(have, prereleases=True):
            raise PluginError(
                f"{where} needs lmtasks{needed.specifier}, and this is {have}; install another version of one of them"
            )


def _taken(found: DiscoveredPlugin) -> PluginError:
    return PluginError(
        f'plugin "{found.name}" ({found.origin}) has the name of one that lmtasks brings, and is left out; its entry'
        " point needs another"
    )


def _name_of_file(found: DiscoveredPlugin, tasks: Iterable[object]) -> str:
    """Return the name that a file's tasks begin with; metrics alone go by the file's."""
    return next((task.name.partition("/")[0] for task in tasks if isinstance(task, Task)), found.name)


def _returned(where: str, hook: pluggy.HookCaller) -> list[object]:
    """Call a plugin's hook, if it has it, and return what it returned as a list."""
    items: list[object] = []
    # Called one by one: through pluggy, None is taken for no answer, and a hook that forgets to return passes.
    for implementation in hook.get_hookimpls():
        with guarded_call(f"{where}: {hook.name} failed"):
            returned = implementation.function()
            if listed := isinstance(returned, Iterable) and not isinstance(returned, (str, bytes, Mapping)):
                items.extend(returned)
        if not listed:
            kind = "None" if returned is None else type(returned).__name__
            wanted = "Task" if hook.name == "register_tasks" else "Metric"
            raise PluginError(f"{where}: {hook.name} returned {kind}, expected a list of lmtasks.{wanted}")
    return items


def _checked_tasks(where: str, found: DiscoveredPlugin, tasks: Iterable[object]) -> Iterable[Task]:
    for task in tasks:
        if not isinstance(task, Task):
            raise PluginError(
                f"{where}: register_tasks returned {type(task).__name__}, expected a list of lmtasks.Task"
            )
        if task.name.partition("/")[0] != found.name:
            raise PluginError(
                f'{where}: a task is named "{task.name}", expected "{found.name}" or "{found.name}/<variant>"'
            )
        named = task.with_origin(found.origin)
        metrics = [
            metric if isinstance(metric, str) else PluginMetric(metric, _name_of(where, metric), f"of {named.label}")
            for metric in named.metrics
        ]
        yield named.with_metrics(metrics)


def _checked_metrics(where: str, found: DiscoveredPlugin, metrics: Iterable[object]) -> Iterable[Metric]:
    for metric in metrics:
        name = _name_of(where, metric)
        yield PluginMetric(cast(Metric, metric), name, f"({found.origin})")


def _name_of(where: str, metric: object) -> str:
    """Return a metric's name, which is a plugin's code too."""
    name: object = None
    with guarded_call(f"{where}: the name of a metric cannot be read"):
        if isinstance(metric, Metric):
            name = metric.name
    if not isinstance(name, str) or not name:
        raise PluginError(
            f"{where}: a metric is {type(metric).__name__}, which is no lmtasks.Metric: it has a name and"
            " measure(samples, language)"
        )
    return name


def _by_name(where: str, kind: str, items: Iterable[Named]) -> dict[str, Named]:
    named: dict[str, Named] = {}
    for item in items:
        if item.name in named:
            raise PluginError(f'{where}: two of its {kind}s are named "{item.name}"')
        named[item.name] = item
    return named


def find_task(
    registry: Registry, task: str | Task, parameters: Mapping[str, object] | None = None
) -> tuple[Task, LoadedPlugin | None]:
    """Return a task by its name, with the plugin that it comes from, or one that was handed over.

    Args:
        registry: finds it.
        task: its name, a file, or a Task.
        parameters: what is set of its parameters.

    Raises:
        UnknownNameError: there is no such task or parameter.
        UsageError: a parameter cannot have that value.
        PluginError: the plugin cannot be loaded.
    """
    found, plugin = registry.task(task) if isinstance(task, str) else (task, None)
    try:
        return found.with_settings(parameters or {}), plugin
    except KeyError as error:
        raise unknown_name(f'parameter of task "{found.name}"', error.args[0], found.parameters) from None
    except ValueError as error:
        raise UsageError(str(error)) from None
