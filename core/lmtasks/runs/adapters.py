"""An adapter for a run: put on the model, checked against the run's task and prompt."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from lmtasks.backends import LanguageModel
from lmtasks.errors import option
from lmtasks.models.adapter_files import Adapter
from lmtasks.prompts import Renderer
from lmtasks.task import Task

log = logging.getLogger("lmtasks.runs")


@dataclass(frozen=True, slots=True)
class AdapterChoice:
    """Which adapter a run uses."""

    adapter: Adapter
    bundled: bool
    """Whether the task brought it: then it is used only where the base matches."""


def attach_for_run(
    choice: AdapterChoice | None, model: LanguageModel, task: Task, renderer: Renderer
) -> Adapter | None:
    """Put the adapter of a run on the model, and warn of what may spoil its answers.

    Returns:
        The adapter that answers; None: the base model does.

    Raises:
        AdapterError: it does not fit the model.
    """
    if choice is None:
        return None
    adapter = choice.adapter
    if choice.bundled and not adapter.belongs_to(model.info):
        base = adapter.record["base"]["name"] if adapter.record else "another base"
        log.warning('the adapter that task "%s" brings is for %s: %s runs without it', task.name, base, model.info.name)
        return None
    if model.attach(adapter) == 0:
        log.warning("%s changes nothing of what %s says: is it trained?", adapter.source, model.info.name)
    if adapter.record is None:
        _warn_of_base(adapter, model.info.name)
        return adapter
    trained = adapter.record["prompt"]
    if adapter.task != task.name:
        log.warning('%s was trained for task "%s", not for "%s"', adapter.source, adapter.task, task.name)
    elif trained["name"] != renderer.name:
        log.warning(
            '%s was trained with the prompt "%s", and is used with "%s": see %s',
            adapter.source,
            trained["name"],
            renderer.name,
            option("prompt"),
        )
    elif trained["sha256"] != renderer.fingerprint():
        log.warning(
            'the prompt "%s" of task "%s" is no longer the one that %s was trained with: train it again',
            renderer.name,
            task.name,
            adapter.source,
        )
    return adapter


def _warn_of_base(adapter: Adapter, model: str) -> None:
    """Say what is known of the base of an adapter that has no record: at most a name."""
    base = adapter.config.get("base_model_name_or_path")
    if base and not is_same_name(base, model):
        log.warning(
            "%s was made for %s by its adapter_config.json, and runs on %s: its answers may be nonsense. It does not"
            " say which weights and prompt it was trained with",
            adapter.source,
            base,
            model,
        )
    else:
        log.warning(
            "%s does not say which weights and prompt it was trained with: nothing could be checked", adapter.source
        )


def is_same_name(one: str, other: str) -> bool:
    """Return whether two names may be of one model: the last parts of hub ids or paths agree, but for case."""
    ends = [PurePath(name.partition("@")[0].rstrip("/")).name.lower() for name in (one, other)]
    return ends[0] == ends[1]


def adapter_record(adapter: Adapter | None, model: LanguageModel) -> dict[str, Any] | None:
    """Return what a run records of its adapter."""
    if adapter is None:
        return None
    config = adapter.config
    return {
        "source": adapter.source,
        "id": adapter.id,
        "sha256": adapter.sha256,
        "task": adapter.task,
        "rank": adapter.rank,
        "alpha": adapter.alpha,
        "rslora": bool(config.get("use_rslora")),
        "dora": bool(config.get("use_dora")),
        "effect": model.attach(adapter),
    }
