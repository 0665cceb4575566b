"""Scoring without a model: of outputs that were made elsewhere, and of finished runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lmtasks.data import Dataset, file_sha256
from lmtasks.errors import LmtasksError
from lmtasks.options import ScoreOptions
from lmtasks.paths import user_path
from lmtasks.plugins import DiscoveredPlugin
from lmtasks.reasoning import FORMATS, ReasoningParser
from lmtasks.records.run import ModelRunRecord, OutputsRecord, OutputsRunRecord
from lmtasks.runs.acquire import acquire_run_folder
from lmtasks.runs.environment import environment
from lmtasks.runs.folder import Run, samples_sha256, write_record
from lmtasks.runs.run_json import data_record, now, score_fields, task_record, total_fields
from lmtasks.runs.sample_file import append_samples, sync_samples
from lmtasks.runs.samples import new_sample
from lmtasks.task import Metric, Sample, Score, Task

log = logging.getLogger("lmtasks.runs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Scores that were computed without a model."""

    record: ModelRunRecord | OutputsRunRecord
    """The record of the run, with these scores."""
    samples: Sequence[Sample]
    path: Path | None = None
    """The run folder, where there is one."""

    @property
    def scores(self) -> list[Score]:
        """The scores, with signatures and intervals."""
        return [score.score for score in self.record.scores]

    @property
    def output_checks(self) -> list[Score]:
        """Shares of outputs that are empty, truncated, repetitive or copied, and their length."""
        return [score.score for score in self.record.output_checks]


def score_predictions(
    task: Task,
    plugin: DiscoveredPlugin | None,
    dataset: Dataset,
    predictions: Sequence[str],
    metrics: Sequence[Metric],
    options: ScoreOptions,
) -> tuple[Scored, list[LmtasksError]]:
    """Score outputs that were made elsewhere.

    Args:
        task: states the language of the references, where the data does not.
        plugin: where the task comes from.
        dataset: the examples.
        predictions: an output for each of them.
        metrics: to be computed.
        options: the file that the outputs come from, and the bootstrap.

    Returns:
        The scores, and what went wrong with metrics: it costs their scores alone.
    """
    started = now()
    samples = [
        replace(new_sample(task, index, example), completion=prediction, prediction=prediction, finish_reason="unknown")
        for index, (example, prediction) in enumerate(zip(dataset.examples, predictions, strict=True))
    ]
    _warn_of_reasoning(predictions)
    source = user_path(str(options.predictions), "file of predictions")
    columns = {name: column for name, column in options.columns.items() if name != "prediction"}
    fields, failures = score_fields(samples, metrics, resamples=options.resamples, seed=options.seed)
    record = OutputsRunRecord(
        status="finished",
        error=None,
        started=started,
        task=task_record(task, plugin),
        data=data_record(dataset, limit=options.limit, columns=columns, language=options.language),
        model=OutputsRecord(name=source.name, revision=f"sha256:{file_sha256(source)}"),
        environment=environment(),
        samples_sha256=None,
        finished=now(),
        **fields,
        **total_fields(samples),
    )
    return Scored(record=record, samples=samples), failures


def write_outputs_run(scored: Scored, output_dir: str | Path, on_end: Callable[[Run], None]) -> Scored:
    """Write a run folder for outputs that were made elsewhere, and return their scores with its path.

    Args:
        scored: the outputs with their scores.
        output_dir: the folder of run folders.
        on_end: called with the run before run.json is written: a folder that has one is complete.

    Raises:
        RunError: the folder cannot be written.
    """
    names = (scored.record.task.name, Path(scored.record.model.name).stem)
    with acquire_run_folder(output_dir, names, key=None) as (path, _):
        append_samples(path, scored.samples)
        sync_samples(path)
        record = scored.record.model_copy(update={"samples_sha256": samples_sha256(path)})
        on_end(Run(path, record))
        write_record(path, record)
    return replace(scored, record=record, path=path)


def _warn_of_reasoning(predictions: Sequence[str]) -> None:
    parser = ReasoningParser(closings=tuple(format.closing for format in FORMATS))
    count = sum(parser.parse(text).start != 0 for text in predictions)
    if count:
        log.warning(
            "%d of %d outputs contain reasoning, or a marker that ends it; outputs made elsewhere are scored as they"
            " are: leave only the answers in them",
            count,
            len(predictions),
        )


def score_run(run: Run, metrics: Sequence[Metric], options: ScoreOptions) -> tuple[Scored, list[LmtasksError]]:
    """Score a finished run again, from its samples; its folder stays as it is.

    Returns:
        The scores, and what went wrong with metrics: it costs their scores alone.

    Raises:
        RunError: the samples are damaged.
    """
    samples = run.samples
    fields, failures = score_fields(samples, metrics, resamples=options.resamples, seed=options.seed)
    record = run.record.model_copy(update={**fields, **total_fields(samples)})
    return Scored(record=record, samples=samples, path=run.path), failures
