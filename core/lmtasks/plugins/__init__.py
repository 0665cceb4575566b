"""Plugins: found by entry point, loaded one by one, each failure kept to who asked for it."""

from lmtasks.plugins.discovery import FoundPlugin, find_plugins
from lmtasks.plugins.registry import LoadedPlugin, Registry

__all__ = ["FoundPlugin", "LoadedPlugin", "Registry", "find_plugins"]
