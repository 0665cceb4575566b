"""Scoring without a model: outputs that were made elsewhere, and finished runs again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmtasks.data import Dataset, file_sha256
from lmtasks.errors import LmtasksError
from lmtasks.options import ScoreOptions
from lmtasks.paths import user_path
from lmtasks.plugins import DiscoveredPlugin
from lmtasks.reasoning import FORMATS, ReasoningParser
from lmtasks.runs.acquire import acquire_run_folder
from lmtasks.runs.environment import environment
from lmtasks.runs.folder import SCHEMA, Run, write_record
from lmtasks.runs.run_json import data_record, now, scores_record, task_record, totals_record
from lmtasks.runs.sample_file import append_samples, sync_samples
from lmtasks.runs.samples import new_sample
from lmtasks.task import Metric, Sample, Score, Task

log = logging.getLogger("lmtasks.runs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Scores that were computed without a model."""

    record: Mapping[str, Any]
    """As in run.json: task, data, model, metrics, scores, health, intervals, counts."""
    samples: Sequence[Sample]
    path: Path | None
    """The run folder, where there is one."""

    @property
    def scores(self) -> list[Score]:
        """The scores, with signatures and intervals."""
        return [Score(**score) for score in self.record["scores"]]

    @property
    def health(self) -> list[Score]:
        """How sound the outputs are."""
        return [Score(**score) for score in self.record["health"]]


def score_predictions(
    task: Task,
    plugin: DiscoveredPlugin | None,
    dataset: Dataset,
    predictions: Sequence[str],
    metrics: Sequence[Metric],
    options: ScoreOptions,
    failures: list[LmtasksError] | None = None,
    on_end: Callable[[Run], None] = lambda _: None,
) -> Scored:
    """Score outputs that were made elsewhere.

    Args:
        task: says in which language the references are, where the data does not.
        plugin: where the task comes from.
        dataset: the examples.
        predictions: an output for each of them.
        metrics: to be computed.
        options: the file that the outputs come from, the bootstrap, and where to leave a run folder.
        failures: gets what goes wrong with a metric, which costs its scores alone; None: it is raised.
        on_end: hears of the run folder, if one was asked for, before run.json is written: a folder that has one has
            everything.

    Raises:
        LmtasksError: a metric failed, or the run folder cannot be written.
    """
    samples = [
        replace(new_sample(task, index, example), completion=prediction, prediction=prediction, finish="unknown")
        for index, (example, prediction) in enumerate(zip(dataset.examples, predictions, strict=True))
    ]
    _warn_of_reasoning(predictions)
    source = user_path(str(options.predictions), "file of predictions")
    columns = {name: column for name, column in options.columns.items() if name != "prediction"}
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "status": "finished",
        "error": None,
        "started": now(),
        "task": task_record(task, plugin),
        "prompt": None,
        "data": data_record(dataset, limit=options.limit, columns=columns, language=options.language),
        "model": {"name": source.name, "source": "outputs", "revision": f"sha256:{file_sha256(source)}"},
        "generation": None,
        "environment": environment(),
        **scores_record(samples, metrics, resamples=options.resamples, seed=options.seed, failures=failures),
        **totals_record(samples),
        "finished": now(),
    }
    path = None
    if options.output_dir is not None:
        with acquire_run_folder(options.output_dir, (task.name, source.stem), key=None) as (path, _):
            append_samples(path, samples)
            sync_samples(path)
            on_end(Run(path, record))
            write_record(path, record)
    return Scored(record=record, samples=samples, path=path)


def _warn_of_reasoning(predictions: Sequence[str]) -> None:
    parser = ReasoningParser(closings=tuple(format.closing for format in FORMATS))
    count = sum(parser.parse(text).start != 0 for text in predictions)
    if count:
        log.warning(
            "%d of %d outputs hold reasoning, or a marker that ends it; outputs made elsewhere are scored as they are:"
            " leave in them the answers alone",
            count,
            len(predictions),
        )


def score_run(
    run: Run, metrics: Sequence[Metric], options: ScoreOptions, failures: list[LmtasksError] | None = None
) -> Scored:
    """Score a finished run again, from its samples; its folder stays as it is.

    Failures of metrics are as for `score_predictions`.

    Raises:
        LmtasksError: a metric failed.
    """
    samples = run.samples
    scores = scores_record(samples, metrics, resamples=options.resamples, seed=options.seed, failures=failures)
    return Scored(record={**run.record, **scores, **totals_record(samples)}, samples=samples, path=run.path)
