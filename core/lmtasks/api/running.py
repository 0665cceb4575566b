"""Doing tasks with a model: over data, and on one's own text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lmtasks.data import DataRequest, Dataset, load_dataset, load_fewshot
from lmtasks.errors import AdapterError, UsageError, option, unknown_name
from lmtasks.metrics import check_references, find_metrics
from lmtasks.models import DEFAULT
from lmtasks.models.adapter_files import find_adapter
from lmtasks.paths import user_path
from lmtasks.plugins import DiscoveredPlugin, Registry, find_task
from lmtasks.progress import OnProgress, no_progress
from lmtasks.reports import write_report
from lmtasks.runs.folder import Run
from lmtasks.runs.options import RunOptions, with_changes
from lmtasks.task import Example, Task

if TYPE_CHECKING:
    from lmtasks.backends import LanguageModel
    from lmtasks.runs.adapters import AdapterChoice
    from lmtasks.runs.execute import OnFailure
    from lmtasks.runs.plan import Plan

log = logging.getLogger("lmtasks")
RUN_OPTION = "option of a run"
LIKELIHOOD = ("loglikelihood", "perplexity")
"""Metrics of what a run measures with `loglikelihood`."""


def load_model(
    name: str | Path = DEFAULT, options: RunOptions | None = None, *, on_progress: OnProgress = no_progress
) -> LanguageModel:
    """Load a language model, to be used for any number of runs.

    Args:
        name: of the catalogue, a folder, a .gguf file, or a hub id ("org/name[@revision]").
        options: device, dtype, quantize, memory and trust_remote_code count here.
        on_progress: hears of fetching, converting and loading.

    Raises:
        ModelError: it cannot be had or loaded.
        UnknownNameError: the name is none of these.
    """
    from lmtasks.backends.huggingface import TransformersModel
    from lmtasks.models.loading import load

    options = options or RunOptions()
    return TransformersModel(
        load(
            str(name),
            device=options.device,
            dtype=options.dtype,
            trust_remote_code=options.trust_remote_code,
            on_progress=on_progress,
        ),
        memory_bytes=int(options.memory * 2**30),
        quantize=options.quantize,
    )


def run(
    task: str | Task,
    options: RunOptions | None = None,
    *,
    model: str | Path | LanguageModel = DEFAULT,
    on_progress: OnProgress = no_progress,
    **changes: object,
) -> Run:
    """Run a task over its data with a model, and score it.

    >>> run("summarization", data="news.jsonl", limit=20).scores  # doctest: +SKIP

    Args:
        task: its name ("translation/en-zh", or the plugin's name for its first task), or a Task.
        options: settings; the fields of RunOptions say what there is.
        model: a name, or a model loaded before.
        on_progress: hears how far it is.
        **changes: fields of RunOptions, over `options`.

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
        tasks: each with its adapter; None: that of the options.
        options: of all of them; each takes its own data.
        model: as for `run`.
        on_progress: hears how far they are.
        on_failure: hears of each run whose parser or metric failed, which costs it examples or scores, and the others
            nothing; None: the first one is raised when all have ended.

    Raises:
        LmtasksError: as for `run`.
    """
    # All of them first: bad data of the last task is found before a model is loaded.
    plans = [
        plan_run(task, options if adapter is None else replace(options, adapter=adapter)) for task, adapter in tasks
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
    return run_plans(
        plans,
        model,
        on_progress=on_progress,
        on_end=write_report,
        on_failure=on_failure,
    )


def plan_run(task: str | Task, options: RunOptions, *, dataset: Dataset | None = None) -> Plan:
    """Check everything about a run that needs no model: task, prompt, metrics, settings and data.

    Args:
        task: as for `run`.
        options: settings.
        dataset: the examples, where they have been read already.

    Raises:
        LmtasksError: as for `run`.
    """
    from lmtasks.runs.plan import Plan

    registry = Registry()
    user_path(options.output_dir, "output folder")
    found, plugin = find_task(registry, task, options.parameters)
    _check_prompt(found, options.prompt)
    named = [*(options.metrics or found.metrics), *(LIKELIHOOD if options.loglikelihood else ())]
    metrics = find_metrics(named, registry.metric)
    if not options.loglikelihood and any(metric.name in LIKELIHOOD for metric in metrics):
        raise UsageError(f"{' and '.join(LIKELIHOOD)} are measured only by a run with {option('loglikelihood', True)}")
    generation = options.generation(found.generation)
    request = DataRequest(
        data=options.data,
        split=options.split,
        limit=options.limit,
        columns=options.columns,
        language=options.language,
    )
    dataset = dataset or load_dataset(found, request)
    check_references(metrics, dataset.examples)
    fewshot = None
    if options.num_fewshot:
        fewshot = load_fewshot(found, dataset, count=options.num_fewshot, seed=options.seed, data=options.fewshot_data)
    return Plan(
        task=found,
        plugin=plugin.found if plugin else None,
        dataset=dataset,
        fewshot=fewshot,
        metrics=metrics,
        options=options,
        generation=generation,
        adapter=choose_adapter(found, options),
    )


def ask(
    task: str | Task,
    inputs: str | Mapping[str, str],
    options: RunOptions | None = None,
    *,
    model: str | Path | LanguageModel = DEFAULT,
    on_text: Callable[[str], None] | None = None,
    on_progress: OnProgress = no_progress,
    **changes: object,
) -> str:
    """Do a task on one's own text.

    Args:
        task: as for `run`.
        inputs: text for the task's first field, or texts by field name ("" stands for the first).
        options: settings, as for `run`; those about data and scores do not matter here.
        model: a name, or a model loaded before.
        on_text: hears the answer grow, from its beginning each time. Where the task has a parser of its own, it
            hears the whole answer once: such a parser may take back what it let through before.
        on_progress: hears of fetching and loading.
        **changes: fields of RunOptions, over `options`.

    Returns:
        The answer, as the task parses it.

    Raises:
        LmtasksError: its children name what was wrong with task, inputs, model or settings.
    """
    from lmtasks.backends import Request
    from lmtasks.runs.adapters import attach_for_run
    from lmtasks.runs.bound_task import make_renderer
    from lmtasks.runs.plan import max_prompt_tokens, with_stop_strings
    from lmtasks.runs.samples import parse_completion

    options = with_changes(options or RunOptions(), changes, RUN_OPTION)
    found, _ = find_task(Registry(), task, options.parameters)
    _check_prompt(found, options.prompt)
    generation = options.generation(found.generation)
    example = Example(id="ask", inputs=_checked_inputs(found, {"": inputs} if isinstance(inputs, str) else inputs))
    fewshot: tuple[Example, ...] = ()
    if options.num_fewshot:
        demo = load_dataset(found, DataRequest())
        fewshot = load_fewshot(
            found, demo, count=options.num_fewshot, seed=options.seed, data=options.fewshot_data
        ).examples
    choice = choose_adapter(found, options)
    loaded = loaded_model(model, options, on_progress)
    renderer = make_renderer(found, loaded, options, fewshot=fewshot, choice=choice)
    adapter = attach_for_run(choice, loaded, found, renderer)
    generation = with_stop_strings(generation, renderer, adapter)
    room = max_prompt_tokens(loaded, generation)
    prompt = renderer.render_within(example, room, on_overlong=options.on_overlong)
    for name, count in prompt.cut.items():
        log.warning("the last %d characters of %s were cut to fit the model", count, name)

    hear = (lambda text: on_text(text.strip())) if on_text and found.parse is str.strip else None
    adapter_id = adapter.id if adapter else None
    requests = [Request(example.id, prompt.token_ids, generation, adapter_id, prompt.reasoning)]
    [(_, completion)] = next(iter(loaded.generate(requests, seed=options.seed, on_text=hear)))
    if completion.reasoning_tokens and not completion.text.strip():
        log.warning(
            "the model wrote %d tokens of reasoning and no answer; allow more with max_new_tokens",
            completion.reasoning_tokens,
        )
    answer = parse_completion(found, completion.text, example.id)
    if on_text:
        on_text(answer)
    return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTask:
    """A task with one of its prompts as a model sees it."""

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
    **changes: object,
) -> ShownTask:
    """Render the first example of a task's data exactly as a run would.

    Raises:
        LmtasksError: as for `run`.
    """
    from lmtasks.runs.bound_task import make_renderer

    options = with_changes(options or RunOptions(), {"limit": 1, **changes}, RUN_OPTION)
    plan = plan_run(task, options)
    loaded = loaded_model(model, options, on_progress)
    fewshot = plan.fewshot.examples if plan.fewshot else ()
    renderer = make_renderer(plan.task, loaded, options, fewshot=fewshot, choice=plan.adapter)
    prompt = renderer.render(plan.dataset.examples[0])
    return ShownTask(
        task=plan.task,
        plugin=plan.plugin,
        prompt=renderer.name,
        text=loaded.tokenizer.decode(list(prompt.token_ids)),
        tokens=len(prompt.token_ids),
        model=loaded.info.name,
    )


def loaded_model(model: str | Path | LanguageModel, options: RunOptions, on_progress: OnProgress) -> LanguageModel:
    """Return a model that was loaded before, or load it by its name."""
    return load_model(model, options, on_progress=on_progress) if isinstance(model, (str, Path)) else model


def choose_adapter(task: Task, options: RunOptions) -> AdapterChoice | None:
    """Return the adapter that was asked for, or else the one that the task brings."""
    from lmtasks.runs.adapters import AdapterChoice

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


def _check_prompt(task: Task, prompt: str | None) -> None:
    if prompt is not None and prompt not in task.prompts:
        raise unknown_name(f'prompt of task "{task.name}"', prompt, task.prompts)


def _checked_inputs(task: Task, inputs: Mapping[str, str]) -> dict[str, str]:
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
