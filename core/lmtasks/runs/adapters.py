"""The adapter of a run: chosen, attached to the model, and checked against the run's task and prompt."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import PurePath

from lmtasks.backends import LanguageModel
from lmtasks.errors import AdapterError, option
from lmtasks.models.adapter_files import Adapter, find_adapter
from lmtasks.options import RunOptions
from lmtasks.prompts import Renderer
from lmtasks.records.run import UsedAdapterRecord
from lmtasks.task import Task

log = logging.getLogger("lmtasks.runs")


@dataclass(frozen=True, slots=True)
class AdapterChoice:
    """The adapter that a run uses."""

    adapter: Adapter
    bundled: bool
    """Whether the task brings it: then it is used only with the base model that it was trained on."""


def choose_adapter(task: Task, options: RunOptions) -> AdapterChoice | None:
    """Return the adapter that the options name, or else the task's bundled one; None: the base model answers.

    Raises:
        AdapterError: there is no such adapter, or it cannot be read.
    """
    if options.adapter == "none" or (options.adapter is None and task.adapter is None):
        return None
    if options.adapter is not None:
        return AdapterChoice(find_adapter(options.adapter), bundled=False)
    try:
        return AdapterChoice(find_adapter(task.adapter or ""), bundled=True)
    except AdapterError as error:
        raise AdapterError(
            f'task "{task.name}" brings an adapter: {error}; {option("adapter", "none")} runs without it'
        ) from error


def attach_for_run(
    choice: AdapterChoice | None, model: LanguageModel, task: Task, renderer: Renderer
) -> Adapter | None:
    """Attach the adapter of a run to the model; warn if it was trained for something else.

    Returns:
        The adapter that answers; None: the base model does.

    Raises:
        AdapterError: the adapter does not fit the model, or the backend cannot use adapters.
    """
    if choice is None:
        return None
    adapter = choice.adapter
    if choice.bundled and not adapter.belongs_to(model.info):
        base = adapter.record.base.name if adapter.record else "another base"
        log.warning('the adapter that task "%s" brings is for %s: %s runs without it', task.name, base, model.info.name)
        return None
    if not model.capabilities.adapters:
        raise AdapterError(
            f"{adapter.source}: the backend {model.backend} cannot use adapters; {option('adapter', 'none')} runs"
            f" {model.info.name} without one"
        )
    if model.attach(adapter) == 0:
        log.warning("%s does not change the output of %s: is it trained?", adapter.source, model.info.name)
    if adapter.record is None:
        _warn_of_base(adapter, model.info.name)
        return adapter
    trained = adapter.record.prompt
    if adapter.task != task.name:
        log.warning('%s was trained for task "%s", not for "%s"', adapter.source, adapter.task, task.name)
    elif trained.name != renderer.name:
        log.warning(
            '%s was trained with the prompt "%s", and is used with "%s": see %s',
            adapter.source,
            trained.name,
            renderer.name,
            option("prompt"),
        )
    elif trained.sha256 != renderer.fingerprint():
        log.warning(
            'the prompt "%s" of task "%s" is no longer the one that %s was trained with: train it again',
            renderer.name,
            task.name,
            adapter.source,
        )
    return adapter


def _warn_of_base(adapter: Adapter, model: str) -> None:
    """Warn about an adapter without a record: at most the name of its base model is known."""
    base = adapter.config.get("base_model_name_or_path")
    if base and not is_same_name(base, model):
        log.warning(
            "%s was trained for %s according to its adapter_config.json, and runs on %s: its answers may be poor. It"
            " does not say which weights and prompt it was trained with",
            adapter.source,
            base,
            model,
        )
    else:
        log.warning(
            "%s does not say which weights and prompt it was trained with: nothing could be checked", adapter.source
        )


def is_same_name(one: str, other: str) -> bool:
    """Return whether two names may name one model: the last parts of hub ids or paths are equal, ignoring case."""
    ends = [PurePath(name.partition("@")[0].rstrip("/")).name.lower() for name in (one, other)]
    return ends[0] == ends[1]


def adapter_record(adapter: Adapter | None, model: LanguageModel) -> UsedAdapterRecord | None:
    """Return the record of a run's adapter."""
    if adapter is None:
        return None
    return UsedAdapterRecord(
        source=adapter.source,
        id=adapter.id,
        sha256=adapter.sha256,
        task=adapter.task,
        rank=adapter.rank,
        alpha=adapter.alpha,
        rslora=bool(adapter.config.get("use_rslora")),
        dora=bool(adapter.config.get("use_dora")),
        max_logit_change=model.attach(adapter),
    )
