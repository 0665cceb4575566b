"""What lmtasks does, as functions: the command line calls these, and so does `import lmtasks`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lmtasks.data import DataRequest, load_dataset, load_fewshot, read_predictions
from lmtasks.errors import AdapterError, RunError, UsageError, unknown_name
from lmtasks.metrics import check_references, find_metrics
from lmtasks.metrics.bridge import as_evaluate as bridge_to_evaluate
from lmtasks.metrics.statistics import RESAMPLES, SEED, TRIALS
from lmtasks.model import DEFAULT
from lmtasks.model.adapter import find_adapter
from lmtasks.plugins import FoundPlugin, LoadedPlugin, Registry
from lmtasks.progress import OnProgress, no_progress
from lmtasks.prompts import Renderer
from lmtasks.reports import write_report
from lmtasks.runs.folder import RECORD, Run
from lmtasks.runs.options import RunOptions, with_changes
from lmtasks.runs.recorded import metrics_of_runs
from lmtasks.task import Example, Metric, Task

if TYPE_CHECKING:
    from lmtasks.inference import LanguageModel
    from lmtasks.runs.adapters import AdapterChoice
    from lmtasks.runs.compare import Comparison
    from lmtasks.runs.outputs import Scored, ScoreOptions
    from lmtasks.runs.runner import Plan

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
        options: device, dtype and trust_remote_code count here.
        on_progress: hears of fetching, converting and loading.

    Raises:
        ModelError: it cannot be had or loaded.
        UnknownNameError: the name is none of these.
    """
    from lmtasks.inference.transformers_model import TransformersModel
    from lmtasks.model.loading import load

    options = options or RunOptions()
    return TransformersModel(
        load(
            str(name),
            device=options.device,
            dtype=options.dtype,
            trust_remote_code=options.trust_remote_code,
            on_progress=on_progress,
        )
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
    plan = plan_run(task, with_changes(options or RunOptions(), changes, RUN_OPTION))
    loaded = _loaded(model, plan.options, on_progress)
    return run_planned(plan, loaded, on_progress=on_progress)


def run_planned(plan: Plan, model: LanguageModel, *, on_progress: OnProgress = no_progress) -> Run:
    """Run what `plan_run` has checked, and write its report.

    Raises:
        LmtasksError: as for `run`.
    """
    from lmtasks.runs.runner import run_plan

    # A run that failed or was interrupted has a report too, with what there is.
    return run_plan(plan, model, on_progress=on_progress, on_end=lambda path: write_report(Run(path)))


def plan_run(task: str | Task, options: RunOptions) -> Plan:
    """Check everything about a run that needs no model: task, prompt, metrics, settings and data.

    Raises:
        LmtasksError: as for `run`.
    """
    from lmtasks.runs.runner import Plan

    registry = Registry()
    found, plugin = _find_task(registry, task)
    _check_prompt(found, options.prompt)
    named = [*(options.metrics or found.metrics), *(LIKELIHOOD if options.loglikelihood else ())]
    metrics = find_metrics(named, registry.metric)
    if not options.loglikelihood and any(metric.name in LIKELIHOOD for metric in metrics):
        raise UsageError(f"{' and '.join(LIKELIHOOD)} are measured only by a run with --loglikelihood")
    generation = options.generation(found.generation)
    request = DataRequest(
        data=options.data,
        split=options.split,
        limit=options.limit,
        columns=options.columns,
        language=options.language,
    )
    dataset = load_dataset(found, request)
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
        adapter=_choose_adapter(found, options),
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
    from lmtasks.inference import Request
    from lmtasks.runs.adapters import put_on
    from lmtasks.runs.runner import parse_completion, room_for_prompt, stopping

    options = with_changes(options or RunOptions(), changes, RUN_OPTION)
    found, _ = _find_task(Registry(), task)
    _check_prompt(found, options.prompt)
    generation = options.generation(found.generation)
    example = Example(id="ask", inputs=_checked_inputs(found, {"": inputs} if isinstance(inputs, str) else inputs))
    fewshot: tuple[Example, ...] = ()
    if options.num_fewshot:
        demo = load_dataset(found, DataRequest())
        fewshot = load_fewshot(
            found, demo, count=options.num_fewshot, seed=options.seed, data=options.fewshot_data
        ).examples
    loaded = _loaded(model, options, on_progress)
    renderer = Renderer(found, loaded.tokenizer, prompt=options.prompt, fewshot=fewshot)
    adapter = put_on(_choose_adapter(found, options), loaded, found, renderer)
    generation = stopping(generation, renderer, adapter)
    room = room_for_prompt(loaded, generation)
    prompt = renderer.render_within(example, room, on_overlong=options.on_overlong)
    for name, count in prompt.cut.items():
        log.warning("the last %d characters of %s were cut to fit the model", count, name)

    hear = (lambda text: on_text(text.strip())) if on_text and found.parse is str.strip else None
    requests = [Request(example.id, prompt.token_ids, generation, adapter and adapter.sha256)]
    [(_, completion)] = next(iter(loaded.generate(requests, seed=options.seed, on_text=hear)))
    answer = parse_completion(found, completion.text, example.id)
    if on_text:
        on_text(answer)
    return answer


def score(
    target: str | Path | Task | Run,
    options: ScoreOptions | None = None,
    **changes: object,
) -> Scored:
    """Score outputs that were made elsewhere, or a finished run again; no model is loaded.

    >>> score("translation/en-zh", data="test.jsonl", predictions="system.txt").scores  # doctest: +SKIP

    Args:
        target: a task, whose `predictions` are scored, or a run or its folder.
        options: settings; the fields of ScoreOptions say what there is.
        **changes: fields of ScoreOptions, over `options`.

    Raises:
        DataError: data and predictions do not match, or cannot be read.
        RunError: the run has not finished, or has no folder.
        LmtasksError: as for `run`.
    """
    from lmtasks.runs.outputs import ScoreOptions, score_predictions, score_run

    options = with_changes(options or ScoreOptions(), changes, "option of a scoring")
    registry = Registry()
    if options.predictions is None:
        run = target if isinstance(target, Run) else _run_to_score(target)
        for name in ("data", "split", "limit", "references", "columns", "language", "output_dir"):
            if getattr(options, name):
                flag = "map" if name == "columns" else name.replace("_", "-")
                raise UsageError(f"--{flag} does not go with a run, which has its own data; it goes with --predictions")
        if run.status != "finished":
            raise RunError(f"{run.path}: the run is {run.status}, not finished; run it again to finish it")
        return score_run(run, metrics_of_runs([run], options.metrics, registry), options)
    if isinstance(target, Run) or (not isinstance(target, Task) and (Path(target) / RECORD).is_file()):
        raise UsageError("--predictions are outputs for a task, not for a run, which has its own")
    found, plugin = _find_task(registry, target if isinstance(target, Task) else str(target))
    metrics = find_metrics(options.metrics or found.metrics, registry.metric)
    if any(metric.name in LIKELIHOOD for metric in metrics):
        raise UsageError("log-likelihoods need a model: they are measured by a run with --loglikelihood")
    request = DataRequest(
        data=options.data,
        split=options.split,
        limit=options.limit,
        columns={name: column for name, column in options.columns.items() if name != "prediction"},
        language=options.language,
        need_inputs=False,
    )
    dataset = load_dataset(found, request)
    if not any(example.references for example in dataset.examples):
        raise UsageError(f"{dataset.name} has no references to score against; name their column with --references")
    predictions = read_predictions(
        Path(options.predictions).expanduser(), dataset.examples, column=options.columns.get("prediction")
    )
    scored = score_predictions(found, plugin.found if plugin else None, dataset, predictions, metrics, options)
    if scored.path:
        write_report(Run(scored.path))
    return scored


def compare(
    *runs: str | Path | Run,
    metrics: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    trials: int = TRIALS,
    seed: int = SEED,
) -> list[Comparison]:
    """Compare runs on the same examples with the first of them.

    Args:
        runs: at least two, or their folders.
        metrics: by name; None: those that all of them were scored with.
        resamples: of the paired bootstrap.
        trials: of the approximate randomisation.
        seed: of both.

    Returns:
        A comparison for each run but the first.

    Raises:
        RunError: their data, references or signatures differ, or one has not finished.
        LmtasksError: a metric cannot be found or failed.
    """
    from lmtasks.runs.compare import compare_runs

    if len(runs) < 2:
        raise UsageError("nothing to compare: name at least two runs")
    for name, number, least in (("resamples", resamples, 2), ("trials", trials, 1), ("seed", seed, 0)):
        if not isinstance(number, int) or number < least:
            raise UsageError(f"{name} must be a whole number of at least {least}, not {number!r}")
    loaded = [run if isinstance(run, Run) else Run(Path(run)) for run in runs]
    found = metrics_of_runs(loaded, metrics, Registry())
    return compare_runs(loaded, found, scored_alike=metrics is not None, resamples=resamples, trials=trials, seed=seed)


def as_evaluate(metric: str | Metric, *, language: str | None = None) -> object:
    """Return a metric as an `evaluate.Metric`, for code that expects one; `evaluate.combine` takes it too.

    Its `compute(predictions=..., references=...)` returns each score by name, on the scale that it has here, with
    "signatures" beside them.

    Args:
        metric: its name as in `--metrics`, or a Metric.
        language: of the references, a BCP 47 tag; None: read from their script.

    Raises:
        UnknownNameError: there is no such metric.
    """
    [found] = find_metrics([metric], Registry().metric)
    return bridge_to_evaluate(found, language=language)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTask:
    """A task with one of its prompts as a model sees it."""

    task: Task
    plugin: FoundPlugin | None
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
    options = with_changes(options or RunOptions(), {"limit": 1, **changes}, RUN_OPTION)
    plan = plan_run(task, options)
    loaded = _loaded(model, options, on_progress)
    fewshot = plan.fewshot.examples if plan.fewshot else ()
    renderer = Renderer(plan.task, loaded.tokenizer, prompt=options.prompt, fewshot=fewshot)
    prompt = renderer.render(plan.dataset.examples[0])
    return ShownTask(
        task=plan.task,
        plugin=plan.plugin,
        prompt=renderer.name,
        text=loaded.tokenizer.decode(list(prompt.token_ids)),
        tokens=len(prompt.token_ids),
        model=loaded.info.name,
    )


def _loaded(model: str | Path | LanguageModel, options: RunOptions, on_progress: OnProgress) -> LanguageModel:
    return load_model(model, options, on_progress=on_progress) if isinstance(model, (str, Path)) else model


def _run_to_score(target: str | Path | Task) -> Run:
    if isinstance(target, Task) or not Path(target).is_dir():
        name = target.name if isinstance(target, Task) else target
        raise UsageError(f'"{name}" is no run folder; if it is a task, name the file of its outputs with --predictions')
    return Run(Path(target))


def _find_task(registry: Registry, task: str | Task) -> tuple[Task, LoadedPlugin | None]:
    return registry.task(task) if isinstance(task, str) else (task, None)


def _choose_adapter(task: Task, options: RunOptions) -> AdapterChoice | None:
    """Return the adapter that was asked for, or else the one that the task brings."""
    from lmtasks.runs.adapters import AdapterChoice

    if options.adapter == "none" or (options.adapter is None and task.adapter is None):
        return None
    if options.adapter is not None:
        return AdapterChoice(find_adapter(options.adapter), shipped=False)
    try:
        return AdapterChoice(find_adapter(task.adapter or ""), shipped=True)
    except AdapterError as error:
        raise AdapterError(f'task "{task.name}" brings an adapter: {error}; --adapter none runs without it') from error


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
