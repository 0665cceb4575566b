"""Which plugins there are: installed ones by their metadata, without importing any, and files that were named."""

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
"""The environment variable that names plugin files, joined as paths are; `--plugin` adds to it."""
DISABLED = "LMTASKS_DISABLE_PLUGINS"
"""The environment variable that names plugins to leave out, joined by commas; `--no-plugin` adds to it."""
SUFFIXES = (".py", ".yaml", ".yml")
"""Of files that are plugins."""


@dataclass(frozen=True, slots=True)
class DiscoveredPlugin:
    """A plugin as its distribution's metadata states it, or a file."""

    name: str
    """The entry point's name, by which its tasks are asked for; of a file that was not read yet, a guess."""
    module: str
    """The module, or the file's path."""
    distribution: str
    """Its name; of a file, the file's."""
    version: str
    """Of the distribution; of a file, the beginning of its SHA-256."""
    load: Callable[[], object]
    """Imports it, and returns what has its hooks."""
    requires: tuple[str, ...] = ()
    """What the distribution needs installed, as its metadata states it."""
    file: Path | None = None
    """Where it is a file."""

    @property
    def origin(self) -> str:
        """Distribution and version, for messages."""
        return f"{self.distribution} {self.version}"


def find_plugins() -> dict[str, list[DiscoveredPlugin]]:
    """Return the installed plugins by name, sorted; more than one under a name is a conflict."""
    found: dict[str, list[DiscoveredPlugin]] = {}
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
        found.setdefault(plugin.name, []).append(plugin)
    return dict(sorted(found.items()))


def _stated(distribution: Distribution | None, key: str) -> str | None:
    """Return what the metadata states; what is left of a package that was removed by hand states nothing."""
    if distribution is None or key not in distribution.metadata:
        return None
    return distribution.metadata[key]


def _entry_points() -> Iterable[EntryPoint]:
    """Return the entry points of plugins; one distribution whose metadata is damaged costs the others nothing."""
    try:
        return entry_points(group=PROJECT)
    except Exception:
        found: dict[tuple[str, str], EntryPoint] = {}
        for distribution in distributions():
            try:
                own = distribution.entry_points.select(group=PROJECT)
            except Exception as error:
                where = getattr(distribution, "_path", distribution)
                log.warning("%s: entry_points.txt cannot be read (%s); its plugins are left out", where, error)
                continue
            for entry_point in own:
                found.setdefault((entry_point.name, entry_point.value), entry_point)
        return found.values()


def is_plugin_file(name: str) -> bool:
    """Tell whether a name is that of a Python or YAML file, not of a plugin."""
    return name.lower().endswith(SUFFIXES)


def find_file(path: Path) -> DiscoveredPlugin:
    """Return a Python or YAML file as a plugin; it is read, and not imported yet.

    Raises:
        PluginError: there is no such file, or it is of another kind.
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
    """Return the plugin files that the environment names."""
    return [Path(path) for path in os.environ.get(FILES, "").split(os.pathsep) if path]


def disabled_plugins() -> list[str]:
    """Return the names of the plugins that the environment leaves out."""
    return [name.strip() for name in os.environ.get(DISABLED, "").split(",") if name.strip()]


def _import_file(path: Path) -> object:
    """Import a Python file by its path; modules beside it are not on the path of imports."""
    name = f"lmtasks_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
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
