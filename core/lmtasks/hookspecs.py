"""The pluggy hooks of plugins. They return values and are given no registry to change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from lmtasks.task import Metric, Task

PROJECT = "lmtasks"
"""The entry-point group and pluggy project of all plugins."""

API_VERSION = 1
"""Version of the plugin interface that docs/plugin-reference.md lists."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_tasks() -> Iterable[Task]:  # type: ignore[empty-body]
    """Return the tasks of this plugin; the plugin's bare name means the first one.

    An implementation is quick: it opens no file and loads no model.
    """


@hookspec
def register_metrics() -> Iterable[Metric]:  # type: ignore[empty-body]
    """Return metrics that any task can name as "<this plugin>/<metric>"."""
