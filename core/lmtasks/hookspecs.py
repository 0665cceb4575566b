"""The hooks of plugins. They return values; plugins never get a registry to change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from lmtasks.task import Metric, Task

PROJECT = "lmtasks"
"""The entry-point group and pluggy project of all plugins."""

API_VERSION = 1
"""Version of the plugin interface in docs/plugin-reference.md."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_tasks() -> Iterable[Task]:  # type: ignore[empty-body]
    """Return the tasks of this plugin, first the one that the plugin's name alone means.

    Must be fast: open no file, load no model.
    """


@hookspec
def register_metrics() -> Iterable[Metric]:  # type: ignore[empty-body]
    """Return metrics that any task can name as "<this plugin>/<metric>"."""
