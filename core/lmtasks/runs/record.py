"""The parts of run.json that every run has, however its outputs came about."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

from lmtasks.data import Dataset
from lmtasks.errors import LmtasksError
from lmtasks.languages import states_language
from lmtasks.metrics import is_empty, score_outputs, score_samples
from lmtasks.metrics.statistics import CONFIDENCE
from lmtasks.plugins import FoundPlugin
from lmtasks.task import Metric, Sample, Task


def task_record(task: Task, plugin: FoundPlugin | None) -> dict[str, object]:
    """Return which task it was, and where it came from."""
    return {
        "name": task.name,
        "version": task.version,
        "plugin": plugin.name if plugin else None,
        "distribution": plugin.distribution if plugin else None,
        "distribution_version": plugin.version if plugin else None,
        "parameters": task.settings,
    }


def data_record(
    dataset: Dataset, *, limit: int | None, columns: Mapping[str, str], language: str | None
) -> dict[str, object]:
    """Return which data it was, by name and hash, and what was said about it."""
    return {
        "name": dataset.name,
        "split": dataset.split,
        "count": len(dataset.examples),
        "sha256": dataset.sha256,
        "file_sha256": dataset.file_sha256,
        "limit": limit,
        "columns": dict(columns),
        "language": language,
    }


def scores_record(
    samples: Sequence[Sample],
    metrics: Iterable[Metric],
    *,
    resamples: int,
    seed: int,
    failures: list[LmtasksError] | None = None,
) -> dict[str, object]:
    """Return the scores of samples, the health of all outputs, and how the intervals were made.

    Args:
        samples: of a run, or made elsewhere.
        metrics: to be computed.
        resamples: of the bootstrap for the intervals; 0: without intervals.
        seed: of the bootstrap.
        failures: gets what goes wrong with a metric, which costs its scores alone; None: it is raised.

    Raises:
        LmtasksError: a metric failed.
    """
    metrics = tuple(metrics)
    scores = score_samples(samples, metrics, resamples=resamples, seed=seed, failures=failures)
    health = score_outputs(samples, resamples=resamples, seed=seed)
    return {
        "metrics": [metric.name for metric in metrics],
        "scores": [asdict(score) for score in scores],
        "health": [asdict(score) for score in health],
        "intervals": {
            "method": "bootstrap over examples, percentiles",
            "confidence": CONFIDENCE,
            "resamples": resamples,
            "seed": seed,
        },
    }


def totals_record(samples: Sequence[Sample], reused: Collection[str] = ()) -> dict[str, dict[str, int]]:
    """Return counts and tokens of all samples of a run.

    Args:
        samples: of all sessions that made them.
        reused: ids of those that an earlier session made.
    """
    ran = [sample for sample in samples if sample.finish != "skipped"]
    return {
        "counts": {
            "examples": len(samples),
            "scored": sum(bool(sample.references) for sample in ran),
            "skipped": len(samples) - len(ran),
            "unparsed": sum(sample.error is not None for sample in ran),
            "empty": sum(is_empty(sample) for sample in ran),
            "cut": sum(bool(sample.cut) for sample in ran),
            "unfinished": sum(sample.finish == "length" for sample in ran),
            "reused": sum(sample.id in reused for sample in ran),
        },
        "tokens": {
            "prompt": sum(sample.prompt_tokens for sample in ran),
            "completion": sum(sample.completion_tokens for sample in ran),
        },
    }


def stated_language(task: Task, language: str | None) -> str | None:
    """Return the language of an example's references, if it or its task states one."""
    return language if states_language(language) else task.language


def now() -> str:
    """Return the time, with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
