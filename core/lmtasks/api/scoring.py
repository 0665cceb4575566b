"""Scoring of predictions and comparison of runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from lmtasks.api.running import RUN_OPTION, loaded_model, run_planned
from lmtasks.data import DataRequest, load_dataset, read_predictions
from lmtasks.errors import LmtasksError, RunError, UsageError, option
from lmtasks.metrics import find_metrics
from lmtasks.metrics.evaluate_bridge import as_evaluate as bridge_to_evaluate
from lmtasks.metrics.statistics import SEED, TRIALS
from lmtasks.models import DEFAULT
from lmtasks.options import RunOptions, ScoreKeywords, ScoreOptions, with_changes
from lmtasks.options.score import RESAMPLES
from lmtasks.paths import user_path
from lmtasks.plugins import Registry, find_task
from lmtasks.progress import OnProgress, no_progress
from lmtasks.reports import write_report
from lmtasks.runs.folder import RECORD, Run
from lmtasks.runs.metric_choice import metrics_of_runs
from lmtasks.task import Metric, Task

if TYPE_CHECKING:
    from lmtasks.backends import LanguageModel
    from lmtasks.runs.compare import Comparison
    from lmtasks.runs.rescore import Scored


def score(
    target: str | Path | Task | Run,
    options: ScoreOptions | None = None,
    *,
    on_failure: Callable[[LmtasksError], None] | None = None,
    **changes: Unpack[ScoreKeywords],
) -> Scored:
    """Score predictions of a file, or a finished run again; no model is loaded.

    >>> score("translation/en-zh", data="test.jsonl", predictions="system.txt").scores  # doctest: +SKIP

    Args:
        target: a task to score `predictions` for, or a run or its folder.
        options: settings of the scoring.
        on_failure: called for each metric that failed, whose scores are then missing; None: its error is raised.
        **changes: fields of ScoreOptions that replace those of `options`.

    Raises:
        DataError: data and predictions do not match, or cannot be read.
        RunError: the run has not finished, or has no folder.
        LmtasksError: as for `run`.
    """
    from lmtasks.runs.rescore import write_outputs_run

    options = with_changes(options or ScoreOptions(), changes, "option of a scoring")
    scored, failures = _scored(target, options)
    if failures and on_failure is None:
        raise failures[0]
    if options.predictions is not None and options.output_dir is not None:
        scored = write_outputs_run(scored, options.output_dir, on_end=write_report)
    if on_failure:
        for failure in failures:
            on_failure(failure)
    return scored


def _scored(target: str | Path | Task | Run, options: ScoreOptions) -> tuple[Scored, list[LmtasksError]]:
    from lmtasks.runs.plan import LIKELIHOOD_METRICS
    from lmtasks.runs.rescore import score_predictions, score_run

    registry = Registry()
    if options.predictions is None:
        run = target if isinstance(target, Run) else _run_to_score(target)
        for name in ("data", "split", "limit", "references", "columns", "language", "output_dir"):
            if getattr(options, name):
                raise UsageError(
                    f"{option(name)} cannot be used with a run, which has its own data; it needs"
                    f" {option('predictions')}"
                )
        if run.status != "finished":
            raise RunError(f"{run.path}: the run is {run.status}, not finished; run it again to finish it")
        return score_run(run, metrics_of_runs([run], options.metrics, registry), options)
    if isinstance(target, Run) or (not isinstance(target, Task) and (user_path(target, "run") / RECORD).is_file()):
        raise UsageError(f"{option('predictions')}: outputs belong to a task; a run has its own")
    if options.output_dir is not None:
        user_path(options.output_dir, "output folder")
    task, plugin = find_task(registry, target if isinstance(target, Task) else str(target))
    metrics = find_metrics(options.metrics or task.metrics, registry.metric)
    if any(metric.name in LIKELIHOOD_METRICS for metric in metrics):
        raise UsageError(f"log-likelihoods need a model: only a run with {option('loglikelihood', True)} measures them")
    request = DataRequest(
        data=options.data,
        split=options.split,
        limit=options.limit,
        columns={name: column for name, column in options.columns.items() if name != "prediction"},
        language=options.language,
        require_inputs=False,
    )
    dataset = load_dataset(task, request)
    if not any(example.references for example in dataset.examples):
        raise UsageError(f"{dataset.name} has no references to score against; give them with {option('references')}")
    predictions = read_predictions(options.predictions, dataset.examples, column=options.columns.get("prediction"))
    source = plugin.discovered if plugin else None
    return score_predictions(task, source, dataset, predictions, metrics, options)


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
        metrics: names of metrics; None: those that all runs were scored with.
        resamples: resamples of the paired bootstrap.
        trials: trials of the approximate randomization.
        seed: seed of both.

    Returns:
        A comparison for each run but the first.

    Raises:
        RunError: their data, references or signatures differ, or one has not finished.
        LmtasksError: a metric does not exist or failed.
    """
    from lmtasks.runs.compare import compare_runs

    if len(runs) < 2:
        raise UsageError("nothing to compare: name at least two runs")
    _check_numbers(resamples, trials, seed)
    loaded = [run if isinstance(run, Run) else Run(Path(run)) for run in runs]
    chosen = metrics_of_runs(loaded, metrics, Registry())
    return compare_runs(
        loaded, chosen, ignore_recorded_signatures=metrics is not None, resamples=resamples, trials=trials, seed=seed
    )


def compare_adapters(
    task: str | Task,
    adapters: Sequence[str | Path],
    options: RunOptions | None = None,
    *,
    model: str | Path | LanguageModel = DEFAULT,
    on_progress: OnProgress = no_progress,
    metrics: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    trials: int = TRIALS,
    seed: int = SEED,
) -> list[Comparison]:
    """Run a task with the base model and with adapters, and compare each of them with the base.

    Args:
        task: as for `run`.
        adapters: folders or hub ids, at least one.
        options: settings of the runs.
        model: the base model: its name, or a loaded model.
        on_progress: called with the progress of the runs.
        metrics: names of metrics; None: the task's.
        resamples: as for `compare`.
        trials: as for `compare`.
        seed: as for `compare`.

    Raises:
        LmtasksError: as for `run` and `compare`.
    """
    from lmtasks.runs.compare import compare_runs
    from lmtasks.runs.plan import plan_run

    options = with_changes(options or RunOptions(), {"metrics": metrics}, RUN_OPTION)
    if not adapters:
        raise UsageError("nothing to compare: name at least one adapter")
    _check_numbers(resamples, trials, seed)
    registry = Registry()
    plans = [plan_run(task, replace(options, adapter=adapter), registry=registry) for adapter in ("none", *adapters)]
    runs = run_planned(plans, loaded_model(model, options, on_progress), on_progress=on_progress)
    return compare_runs(
        runs,
        plans[0].metrics,
        ignore_recorded_signatures=metrics is not None,
        resamples=resamples,
        trials=trials,
        seed=seed,
    )


def as_evaluate(metric: str | Metric, *, language: str | None = None) -> object:
    """Return a metric as an `evaluate.Metric`, for code that expects one; `evaluate.combine` takes it too.

    Its `compute(predictions=..., references=...)` returns each score by name, on the scale that it has here, with
    "signatures" beside them.

    Args:
        metric: name of a metric, or a Metric.
        language: language of the references, a BCP 47 tag; None: detected from their script.

    Raises:
        UnknownNameError: the metric does not exist.
    """
    [chosen] = find_metrics([metric], Registry().metric)
    return bridge_to_evaluate(chosen, language=language)


def _check_numbers(resamples: int, trials: int, seed: int) -> None:
    for name, number, least in (("resamples", resamples, 2), ("trials", trials, 1), ("seed", seed, 0)):
        if not isinstance(number, int) or number < least:
            raise UsageError(f"{option(name)} must be a whole number of at least {least}, not {number!r}")


def _run_to_score(target: str | Path | Task) -> Run:
    if isinstance(target, Task) or not user_path(target, "run folder").is_dir():
        name = target.name if isinstance(target, Task) else target
        raise UsageError(
            f'"{name}" is not a run folder; if it is a task, name the file of its outputs with {option("predictions")}'
        )
    return Run(target)
