"""What a plugin may offer: pluggy hooks. They return values; no registry is handed out to be changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from lmtasks.task import Metric, Task

PROJECT = "lmtasks"
"""The entry-point group and pluggy project of all plugins."""

API_VERSION = 1
"""Of the plugin interface, as docs/plugin-reference.md lists it."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_tasks() -> Iterable[Task]:  # type: ignore[empty-body]
    """Return the tasks of this plugin, the one meant by the plugin's bare name first.

    Cheap: open no file, load no model.
    """


@hookspec
def register_metrics() -> Iterable[Metric]:  # type: ignore[empty-body]
    """Return metrics that any task may name as "<this plugin>/<metric>"."""
