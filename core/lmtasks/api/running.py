"""Runs of tasks over data, and questions to tasks on your own text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from lmtasks.models import DEFAULT
from lmtasks.options import InferenceOptions, RunKeywords, RunOptions, with_changes
from lmtasks.plugins import DiscoveredPlugin, Registry
from lmtasks.progress import OnProgress, no_progress
from lmtasks.reports import write_report
from lmtasks.runs.bound_task import bind_task
from lmtasks.runs.folder import Run
from lmtasks.runs.plan import Plan, plan_ask, plan_run
from lmtasks.task import Task

if TYPE_CHECKING:
    from lmtasks.backends import LanguageModel
    from lmtasks.runs.execute import OnFailure

RUN_OPTION = "option of a run"
"""The name of a field of RunOptions in messages."""


def load_model(
    name: str | Path = DEFAULT, options: InferenceOptions | None = None, *, on_progress: OnProgress = no_progress
) -> LanguageModel:
    """Load a language model, to be used for any number of runs.

    Args:
        name: a name of the catalog, a folder, a .gguf file, or a hub id ("org/name[@revision]").
        options: how it is loaded; RunOptions are such options too.
        on_progress: called while the model is downloaded, converted and loaded.

    Raises:
        ModelError: the model cannot be downloaded or loaded.
        UnknownNameError: the name is none of these.
    """
    from lmtasks.backends import registry

    return registry.load_model(str(name), options or InferenceOptions(), on_progress)


def run(
    task: str | Task,
    options: RunOptions | None = None,
    *,
    model: str | Path | LanguageModel = DEFAULT,
    on_progress: OnProgress = no_progress,
    **changes: Unpack[RunKeywords],
) -> Run:
    """Run a task over its data with a model, and score it.

    >>> run("summarization", data="news.jsonl", limit=20).scores  # doctest: +SKIP

    Args:
        task: its name ("translation/en-zh", or the plugin's name for its first task), or a Task.
        options: the settings; RunOptions documents its fields.
        model: a model, or the name to load it by.
        on_progress: called while the model is loaded and the task runs.
        **changes: fields of RunOptions that replace those of `options`.

    Returns:
        The run: its path, scores, samples and record.

    Raises:
        LmtasksError: its children name what was wrong with task, data, model or settings.
    """
    options = with_changes(options or RunOptions(), changes, RUN_OPTION)
    return run_all([(task, None)], options, model=model, on_progress=on_progress)[0]


def run_all(
    tasks: Sequence[tuple[str | Task, str | Path | None]],
    options: RunOptions,
    *,
    model: str | Path | LanguageModel = DEFAULT,
    on_progress: OnProgress = no_progress,
    on_failure: OnFailure | None = None,
) -> list[Run]:
    """Run several tasks, each with an adapter of its own, with one model in memory; their examples share batches.

    Args:
        tasks: each task with its adapter; None: the adapter of the options.
        options: the settings of all runs; each task has its own data.
        model: as for `run`.
        on_progress: called while the model is loaded and the tasks run.
        on_failure: called with the error of each run whose parser or metric failed, which costs that run examples or
            scores and does not affect the others; None: the first error is raised after all runs have ended.

    Raises:
        LmtasksError: as for `run`.
    """
    registry = Registry()
    # All tasks first: bad data of the last one is found before a model is loaded.
    plans = [
        plan_run(task, options if adapter is None else replace(options, adapter=adapter), registry=registry)
        for task, adapter in tasks
    ]
    return run_planned(plans, loaded_model(model, options, on_progress), on_progress=on_progress, on_failure=on_failure)


def run_planned(
    plans: Sequence[Plan],
    model: LanguageModel,
    *,
    on_progress: OnProgress = no_progress,
    on_failure: OnFailure | None = None,
) -> list[Run]:
    """Run what `plan_run` has checked, and write reports; see `run_all`.

    Raises:
        LmtasksError: as for `run`.
    """
    from lmtasks.runs.execute import run_plans

    # A run that failed or was interrupted has a report too, with what there is.
    return run_plans(plans, model, on_progress=on_progress, on_end=write_report, on_failure=on_failure)


def ask(
    task: str | Task,
    inputs: str | Mapping[str, str],
    options: RunOptions | None = None,
    *,
    model: str | Path | LanguageModel = DEFAULT,
    on_text: Callable[[str], None] | None = None,
    on_progress: OnProgress = no_progress,
    **changes: Unpack[RunKeywords],
) -> str:
    """Run a task on your own text.

    Args:
        task: as for `run`.
        inputs: text for the task's first field, or texts by field name ("" stands for the first).
        options: the settings, as for `run`; those about data and metrics are ignored.
        model: a model, or the name to load it by.
        on_text: called with the answer so far, each time it has grown. If the task has a parser of its own, it is
            called once, with the whole answer: such a parser may remove text that it let through before.
        on_progress: called while the model is downloaded and loaded.
        **changes: fields of RunOptions that replace those of `options`.

    Returns:
        The answer, as the task parses it.

    Raises:
        LmtasksError: its children name what was wrong with task, inputs, model or settings.
    """
    options = with_changes(options or RunOptions(), changes, RUN_OPTION)
    plan, example = plan_ask(task, inputs, options)
    return bind_task(plan, loaded_model(model, options, on_progress)).answer(example, on_text)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTask:
    """A task with one of its prompts as a model reads it."""

    task: Task
    plugin: DiscoveredPlugin | None
    prompt: str
    """The prompt's name."""
    text: str
    """The rendered prompt of the first example, control tokens spelled out."""
    tokens: int
    model: str


def show(
    task: str,
    options: RunOptions | None = None,
    *,
    model: str | Path | LanguageModel = DEFAULT,
    on_progress: OnProgress = no_progress,
    **changes: Unpack[RunKeywords],
) -> ShownTask:
    """Render the first example of a task's data exactly as a run would.

    Raises:
        LmtasksError: as for `run`.
    """
    options = with_changes(options or RunOptions(), {"limit": 1, **changes}, RUN_OPTION)
    plan = plan_run(task, options)
    bound = bind_task(plan, loaded_model(model, options, on_progress), attach=False)
    prompt = bound.renderer.render(plan.dataset.examples[0])
    return ShownTask(
        task=plan.task,
        plugin=plan.plugin,
        prompt=bound.renderer.name,
        text=bound.model.tokenizer.decode(list(prompt.token_ids)),
        tokens=len(prompt.token_ids),
        model=bound.model.info.name,
    )


def loaded_model(model: str | Path | LanguageModel, options: RunOptions, on_progress: OnProgress) -> LanguageModel:
    """Return the model, loaded if it is given by name."""
    return load_model(model, options, on_progress=on_progress) if isinstance(model, (str, Path)) else model
