"""What run.json says: of a run with a model, and the parts that outputs made elsewhere have too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from lmtasks.backends import LanguageModel
from lmtasks.data import Dataset
from lmtasks.errors import LmtasksError
from lmtasks.metrics import is_empty, score_outputs, score_samples
from lmtasks.metrics.statistics import CONFIDENCE
from lmtasks.plugins import DiscoveredPlugin
from lmtasks.prompts import RenderedPrompt, Renderer
from lmtasks.runs.environment import environment, package_versions
from lmtasks.runs.folder import SCHEMA
from lmtasks.runs.plan import Plan
from lmtasks.runs.sample_file import ESCAPED
from lmtasks.task import Metric, Sample, SamplingParams, Task

MEASURING = ("generate_seconds", "loglikelihood_seconds")
"""What a run uses its model for."""


def run_settings(
    plan: Plan, renderer: Renderer, model: LanguageModel, generation: SamplingParams, adapter: dict[str, Any] | None
) -> dict[str, Any]:
    """Return what decides the outputs of a run, but for its rendered prompts."""
    options, dataset, fewshot = plan.options, plan.dataset, plan.fewshot
    return {
        "task": task_record(plan.task, plan.plugin),
        "prompt": {
            "name": renderer.name,
            "form": "chat" if renderer.chat else "plain",
            "on_overlong": options.on_overlong,
            "fewshot": fewshot
            and {
                "data": fewshot.pool.name,
                "split": fewshot.pool.split,
                "sha256": fewshot.pool.sha256,
                "ids": [example.id for example in fewshot.examples],
            },
            "chat_template": renderer.template and renderer.template.record,
        },
        "data": data_record(dataset, limit=options.limit, columns=options.columns, language=options.language),
        "model": asdict(model.info),
        "engine": model.engine,
        "adapter": adapter,
        "generation": asdict(generation),
        "seed": options.seed,
        "batch_size": options.batch_size,
        "loglikelihood": options.loglikelihood,
    }


def run_key(settings: Mapping[str, Any], task: Task, prompts: Sequence[RenderedPrompt | None]) -> str:
    """Return the hash of everything that could change an output, but for the date that a chat template tells.

    Args:
        settings: as `run_settings` returns them.
        task: of the run.
        prompts: rendered with a date that is the same for all runs.
    """
    adapter, prompt = settings["adapter"], settings["prompt"]
    template = prompt["chat_template"]
    decisive = {
        **settings,
        "prompt": {**prompt, "sha256": prompts_sha256(prompts), "chat_template": template and template["kwargs"]},
        # Not which release of the plugin: all else that it decides is here, and its parser reads all anew.
        "task": {"name": task.name, "version": task.version, "parameters": task.parameter_values},
        "adapter": adapter and adapter["id"],
        "packages": package_versions(),
    }
    text = json.dumps(decisive, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", ESCAPED)).hexdigest()  # a file's name may hold half a surrogate pair


def prompts_sha256(prompts: Sequence[RenderedPrompt | None]) -> str:
    """Return the hash of all rendered prompts of a run, skipped ones included."""
    return hashlib.sha256("".join(prompt.sha256 if prompt else "-" for prompt in prompts).encode()).hexdigest()


def run_record(
    settings: Mapping[str, Any], prompts: Sequence[RenderedPrompt | None], key: str, metrics: Sequence[Metric]
) -> dict[str, Any]:
    """Return run.json as it stands before the first sample."""
    return {
        "schema": SCHEMA,
        "status": "running",
        "error": None,
        "key": key,
        "started": now(),
        "finished": None,
        **settings,
        "prompt": {**settings["prompt"], "sha256": prompts_sha256(prompts)},
        "environment": environment(),
        "timings": {**dict.fromkeys(MEASURING, 0.0), "total_seconds": 0.0},
        "tokens": {"prompt": 0, "completion": 0, "reasoning": 0},
        "rounding": None,
        "peak_memory_bytes": None,
        "counts": {},
        "metrics": [metric.name for metric in metrics],
        "scores": [],
        "health": [],
    }


def task_record(task: Task, plugin: DiscoveredPlugin | None) -> dict[str, object]:
    """Return which task it was, and where it came from."""
    return {
        "name": task.name,
        "version": task.version,
        "plugin": plugin.name if plugin else None,
        "distribution": plugin.distribution if plugin else None,
        "distribution_version": plugin.version if plugin else None,
        "parameters": task.parameter_values,
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
            "unanswered": sum(bool(sample.reasoning_tokens) and not sample.completion.strip() for sample in ran),
            "reused": sum(sample.id in reused for sample in ran),
        },
        "tokens": {
            "prompt": sum(sample.prompt_tokens for sample in ran),
            "completion": sum(sample.completion_tokens for sample in ran),
            "reasoning": sum(sample.reasoning_tokens for sample in ran),
        },
    }


def now() -> str:
    """Return the time, with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
