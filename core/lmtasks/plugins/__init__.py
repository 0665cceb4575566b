"""Plugins: found by entry point or file, loaded one by one, each failure kept to who asked for it."""

from lmtasks.plugins.discovery import DISABLED, FILES, DiscoveredPlugin, find_plugins, is_plugin_file
from lmtasks.plugins.registry import LoadedPlugin, Registry, find_task

__all__ = [
    "DISABLED",
    "FILES",
    "DiscoveredPlugin",
    "LoadedPlugin",
    "Registry",
    "find_plugins",
    "find_task",
    "is_plugin_file",
]
