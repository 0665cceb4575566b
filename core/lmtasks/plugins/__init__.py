"""Plugins: found by entry point or file, loaded one by one, each failure kept to who asked for it."""

from lmtasks.plugins.discovery import DISABLED, FILES, FoundPlugin, find_plugins, is_plugin_file
from lmtasks.plugins.registry import LoadedPlugin, Registry

__all__ = ["DISABLED", "FILES", "FoundPlugin", "LoadedPlugin", "Registry", "find_plugins", "is_plugin_file"]
