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
    found: dict[str, list[FoundPlugin]] = {}
    for entry_point in entry_points(group=PROJECT):
        distribution = entry_point.dist
        plugin = FoundPlugin(
            name=entry_point.name,
            module=entry_point.value,
            # What is left of a package that was removed by hand has neither name nor version.
            distribution=(distribution and distribution.metadata["Name"]) or "unknown distribution",
            version=(distribution and distribution.metadata["Version"]) or "unknown version",
            entry_point=entry_point,
        )
        found.setdefault(plugin.name, []).append(plugin)
    return dict(sorted(found.items()))
