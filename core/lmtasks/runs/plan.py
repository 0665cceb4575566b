"""Plans of runs and questions: everything that can be checked before a model is loaded."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from lmtasks.backends import LanguageModel
from lmtasks.data import DataRequest, Dataset, FewShot, load_dataset, load_fewshot
from lmtasks.errors import UsageError, option, unknown_name
from lmtasks.languages import primary
from lmtasks.metrics import check_references, find_metrics, language_of
from lmtasks.models.adapter_files import Adapter
from lmtasks.options import RunOptions
from lmtasks.paths import user_path
from lmtasks.plugins import DiscoveredPlugin, Registry, find_task
from lmtasks.runs.adapters import AdapterChoice, choose_adapter
from lmtasks.runs.samples import stated_language
from lmtasks.task import Example, Metric, SamplingParams, Task

log = logging.getLogger("lmtasks.runs")
LIKELIHOOD_METRICS = ("loglikelihood", "perplexity")
"""Metrics that need the option `loglikelihood`."""
LANGUAGE_SAMPLE = 500
"""How many examples are sampled to warn of languages that the model does not support."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """A task with everything that decides how a model is asked."""

    task: Task
    plugin: DiscoveredPlugin | None
    """The plugin that has the task; None: it was passed from Python."""
    fewshot: FewShot | None
    options: RunOptions
    generation: SamplingParams
    adapter: AdapterChoice | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(TaskPlan):
    """A run, with everything that can be checked before a model is loaded."""

    dataset: Dataset
    metrics: tuple[Metric, ...]


def plan_run(
    task: str | Task, options: RunOptions, *, dataset: Dataset | None = None, registry: Registry | None = None
) -> Plan:
    """Check everything about a run that needs no model.

    Args:
        task: a task, or its name.
        options: the settings of the run.
        dataset: the examples, if they have been read already.
        registry: the plugins; None: they are discovered.

    Raises:
        LmtasksError: its children name what was wrong with task, prompt, data, metrics or settings.
    """
    registry = registry or Registry()
    user_path(options.output_dir, "output folder")
    task, plugin = _find_task(task, options, registry)
    metrics = _find_metrics(task, options, registry)
    generation = options.generation(task.output.sampling_params)
    if dataset is None:
        dataset = load_dataset(
            task,
            DataRequest(
                data=options.data,
                split=options.split,
                limit=options.limit,
                columns=options.columns,
                language=options.language,
            ),
        )
    check_references(metrics, dataset.examples)
    return Plan(
        task=task,
        plugin=plugin,
        dataset=dataset,
        fewshot=_load_fewshot(task, dataset, options),
        metrics=metrics,
        options=options,
        generation=generation,
        adapter=choose_adapter(task, options),
    )


def plan_ask(
    task: str | Task, inputs: str | Mapping[str, str], options: RunOptions, *, registry: Registry | None = None
) -> tuple[TaskPlan, Example]:
    """Check everything about a question to a task that needs no model, and return it with the example to answer.

    Args:
        task: a task, or its name.
        inputs: text for the task's first field, or texts by field name ("" stands for the first).
        options: the settings; those about data and metrics are ignored.
        registry: the plugins; None: they are discovered.

    Raises:
        LmtasksError: its children name what was wrong with task, prompt, inputs or settings.
    """
    task, plugin = _find_task(task, options, registry or Registry())
    generation = options.generation(task.output.sampling_params)
    example = Example(id="ask", inputs=check_inputs(task, {"": inputs} if isinstance(inputs, str) else inputs))
    plan = TaskPlan(
        task=task,
        plugin=plugin,
        fewshot=_load_fewshot(task, load_dataset(task, DataRequest()), options) if options.num_fewshot else None,
        options=options,
        generation=generation,
        adapter=choose_adapter(task, options),
    )
    return plan, example


def check_inputs(task: Task, inputs: Mapping[str, str]) -> dict[str, str]:
    """Return the inputs of a question by field name, without those that are empty.

    Raises:
        UsageError: a required field is missing, or the first field is given twice.
        UnknownNameError: the task has no such field.
    """
    first = next(iter(task.fields))
    if "" in inputs and first in inputs:
        raise UsageError(f'the input "{first}" is given twice: it is the first field of task "{task.name}"')
    named = {name or first: text.strip() for name, text in inputs.items()}
    for name in named:
        if name not in task.fields:
            raise unknown_name(f'input of task "{task.name}"', name, task.fields)
    for name, field in task.fields.items():
        if field.required and not named.get(name):
            raise UsageError(f'task "{task.name}" needs the input "{name}"; its inputs are {", ".join(task.fields)}')
    return {name: text for name, text in named.items() if text}


def _find_task(task: str | Task, options: RunOptions, registry: Registry) -> tuple[Task, DiscoveredPlugin | None]:
    """Return the task with its parameters set, and its plugin; refuse a prompt that it does not have."""
    task, plugin = find_task(registry, task, options.parameters)
    if options.prompt is not None and options.prompt not in task.prompts:
        raise unknown_name(f'prompt of task "{task.name}"', options.prompt, task.prompts)
    return task, plugin.discovered if plugin else None


def _find_metrics(task: Task, options: RunOptions, registry: Registry) -> tuple[Metric, ...]:
    names = [*(options.metrics or task.metrics), *(LIKELIHOOD_METRICS if options.loglikelihood else ())]
    metrics = find_metrics(names, registry.metric)
    if not options.loglikelihood and any(metric.name in LIKELIHOOD_METRICS for metric in metrics):
        raise UsageError(
            f"{' and '.join(LIKELIHOOD_METRICS)} are measured only by a run with {option('loglikelihood', True)}"
        )
    return metrics


def _load_fewshot(task: Task, dataset: Dataset, options: RunOptions) -> FewShot | None:
    if not options.num_fewshot:
        return None
    return load_fewshot(task, dataset, count=options.num_fewshot, seed=options.seed, data=options.fewshot_data)


def warn_of_unsupported_languages(plan: Plan, model: LanguageModel, adapter: Adapter | None) -> None:
    """Warn if references are in languages that the model does not support."""
    known = model.info.languages
    if not known or adapter:  # an adapter may have been trained on another
        return
    # A sample is enough for a warning.
    examples = plan.dataset.examples[:: max(1, len(plan.dataset.examples) // LANGUAGE_SAMPLE)]
    languages = Counter(
        primary(stated_language(plan.task, example.language) or language_of(example)) for example in examples
    )
    unsupported = {language: count for language, count in languages.items() if language not in (*known, "und")}
    if unsupported:
        listed = ", ".join(f"{count} in {language}" for language, count in sorted(unsupported.items()))
        log.warning(
            "%s writes %s; of %d examples sampled, %s: expect poor output there",
            model.info.name,
            ", ".join(known),
            len(examples),
            listed,
        )
