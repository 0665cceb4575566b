"""Plugins: discovered by entry point or file, and loaded one by one, so that one that fails costs no other."""

from lmtasks.plugins.discovery import DISABLED, FILES, DiscoveredPlugin, find_plugins, is_plugin_file
from lmtasks.plugins.load import LoadedPlugin
from lmtasks.plugins.registry import Registry, find_task

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
