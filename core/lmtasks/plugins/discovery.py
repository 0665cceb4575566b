"""Discovers plugins: installed ones by their metadata, without importing any, and files that the user names."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from pathlib import Path

from lmtasks.errors import PathError, PluginError
from lmtasks.hookspecs import PROJECT
from lmtasks.paths import user_path

log = logging.getLogger("lmtasks.plugins")
FILES = "LMTASKS_PLUGINS"
"""The environment variable with plugin files, joined like paths; `--plugin` adds to it."""
DISABLED = "LMTASKS_DISABLE_PLUGINS"
"""The environment variable with the names of disabled plugins, joined by commas; `--no-plugin` adds to it."""
SUFFIXES = (".py", ".yaml", ".yml")
"""Suffixes of files that are plugins."""


@dataclass(frozen=True, slots=True)
class DiscoveredPlugin:
    """A plugin as the metadata of its distribution describes it, or a file."""

    name: str
    """Name of the entry point, which its tasks begin with; for a file that was not loaded yet, a guess."""
    module: str
    """The module, or the file's path."""
    distribution: str
    """Name of the distribution, or of the file."""
    version: str
    """Version of the distribution, or the beginning of the file's SHA-256."""
    load: Callable[[], object]
    """Imports it, and returns the object that has its hooks."""
    requires: tuple[str, ...] = ()
    """Requirements of the distribution, as its metadata states them."""
    file: Path | None = None
    """Path of the file; None for an installed plugin."""

    @property
    def origin(self) -> str:
        """Distribution and version, for messages."""
        return f"{self.distribution} {self.version}"


def find_plugins() -> dict[str, list[DiscoveredPlugin]]:
    """Return the installed plugins by name, sorted; more than one under a name is a conflict."""
    discovered: dict[str, list[DiscoveredPlugin]] = {}
    for entry_point in _entry_points():
        distribution: Distribution | None = entry_point.dist
        plugin = DiscoveredPlugin(
            name=entry_point.name,
            module=entry_point.value,
            distribution=_stated(distribution, "Name") or "unknown distribution",
            version=_stated(distribution, "Version") or "unknown version",
            load=entry_point.load,
            requires=tuple((distribution and distribution.requires) or ()),
        )
        discovered.setdefault(plugin.name, []).append(plugin)
    return dict(sorted(discovered.items()))


def _stated(distribution: Distribution | None, key: str) -> str | None:
    """Return a value of the metadata; None if there is none, as in the rest of a package that was removed by hand."""
    if distribution is None or key not in distribution.metadata:
        return None
    return distribution.metadata[key]


def _entry_points() -> Iterable[EntryPoint]:
    """Return the entry points of plugins; a distribution whose metadata is damaged is left out."""
    try:
        return entry_points(group=PROJECT)
    except Exception:
        by_key: dict[tuple[str, str], EntryPoint] = {}
        for distribution in distributions():
            try:
                of_distribution = distribution.entry_points.select(group=PROJECT)
            except Exception as error:
                where = getattr(distribution, "_path", distribution)
                log.warning("%s: entry_points.txt cannot be read (%s); its plugins are left out", where, error)
                continue
            for entry_point in of_distribution:
                by_key.setdefault((entry_point.name, entry_point.value), entry_point)
        return by_key.values()


def is_plugin_file(name: str) -> bool:
    """Return whether a name is that of a Python or YAML file, and not of a plugin."""
    return name.lower().endswith(SUFFIXES)


def find_file(path: Path) -> DiscoveredPlugin:
    """Return a Python or YAML file as a plugin; it is read, but not imported yet.

    Raises:
        PluginError: there is no such file, or it has another suffix.
    """
    try:
        path = user_path(path, "plugin file")
    except PathError as error:
        raise PluginError(str(error)) from error
    if not is_plugin_file(path.name):
        raise PluginError(f"{path}: a plugin's file ends in {', '.join(SUFFIXES)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PluginError(f"{path}: cannot be read ({error.strerror}); name a Python or YAML file") from error
    return DiscoveredPlugin(
        name=path.stem.removeprefix("lmtasks_").replace("_", "-").lower(),
        module=str(path),
        distribution=path.name,
        version=f"sha256:{hashlib.sha256(content).hexdigest()[:12]}",
        load=lambda: _import_file(path) if path.suffix.lower() == ".py" else _read_yaml(path, content),
        file=path,
    )


def named_files() -> list[Path]:
    """Return the plugin files of the environment variable `FILES`."""
    return [Path(path) for path in os.environ.get(FILES, "").split(os.pathsep) if path]


def disabled_plugins() -> list[str]:
    """Return the names of the environment variable `DISABLED`."""
    return [name.strip() for name in os.environ.get(DISABLED, "").split(",") if name.strip()]


def _import_file(path: Path) -> object:
    """Import a Python file by its path; `sys.path` does not include its folder."""
    name = f"lmtasks_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look for their module there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _read_yaml(path: Path, content: bytes) -> object:
    from lmtasks.plugins.yaml_task import read_task

    return read_task(path, content)
