"""Which plugins are installed: names from metadata, without importing any."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from lmtasks.hookspecs import PROJECT


@dataclass(frozen=True, slots=True)
class FoundPlugin:
    """A plugin as its distribution's metadata states it."""

    name: str
    """The entry point's name, by which its tasks are asked for."""
    module: str
    distribution: str
    version: str
    entry_point: EntryPoint

    @property
    def origin(self) -> str:
        """Distribution and version, for messages."""
        return f"{self.distribution} {self.version}"


def find_plugins() -> dict[str, list[FoundPlugin]]:
    """Return the installed plugins by name, sorted; more than one under a name is a conflict."""
    found: dict[str, dict[tuple[str, str], FoundPlugin]] = {}
    for entry_point in entry_points(group=PROJECT):
        distribution = entry_point.dist
        plugin = FoundPlugin(
            name=entry_point.name,
            module=entry_point.value,
            distribution=distribution.name if distribution else "unknown distribution",
            version=distribution.version if distribution else "unknown version",
            entry_point=entry_point,
        )
        # An editable install can list the same distribution twice on sys.path.
        found.setdefault(plugin.name, {})[plugin.distribution, plugin.module] = plugin
    return {name: list(plugins.values()) for name, plugins in sorted(found.items())}
