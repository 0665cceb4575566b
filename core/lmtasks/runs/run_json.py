"""Records of runs, built from plans, samples and scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from lmtasks.backends import LanguageModel
from lmtasks.data import Dataset
from lmtasks.data.fewshot import FewShot
from lmtasks.errors import LmtasksError
from lmtasks.metrics import is_empty, score_outputs, score_samples
from lmtasks.metrics.statistics import CONFIDENCE
from lmtasks.plugins import DiscoveredPlugin
from lmtasks.prompts import RenderedPrompt, Renderer
from lmtasks.records.parts import ChatTemplateRecord, DataRecord, ScoreRecord, TaskRecord
from lmtasks.records.run import (
    CountsRecord,
    FewShotRecord,
    GenerationRecord,
    IntervalsRecord,
    ModelRecord,
    ModelRunRecord,
    PromptRecord,
    QuantizationLossRecord,
    TimingsRecord,
    TokensRecord,
    UsedAdapterRecord,
)
from lmtasks.runs.environment import environment, package_versions
from lmtasks.runs.plan import Plan
from lmtasks.runs.sample_file import ESCAPED
from lmtasks.task import Metric, Sample, SamplingParams, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """Settings that decide the outputs of a run, besides its rendered prompts; named as in its record."""

    task: TaskRecord
    prompt: PromptRecord
    data: DataRecord
    model: ModelRecord
    backend: str
    adapter: UsedAdapterRecord | None
    generation: GenerationRecord
    seed: int
    batch_size: int | None
    loglikelihood: bool


def run_settings(
    plan: Plan, renderer: Renderer, model: LanguageModel, generation: SamplingParams, adapter: UsedAdapterRecord | None
) -> RunSettings:
    """Return the settings that decide the outputs of a run, besides its rendered prompts."""
    options, dataset, fewshot = plan.options, plan.dataset, plan.fewshot
    return RunSettings(
        task=task_record(plan.task, plan.plugin),
        prompt=PromptRecord(
            name=renderer.name,
            form="chat" if renderer.chat else "plain",
            sha256=None,
            on_overlong=options.on_overlong,
            fewshot=_fewshot_record(fewshot) if fewshot else None,
            chat_template=chat_template_record(renderer),
        ),
        data=data_record(dataset, limit=options.limit, columns=options.columns, language=options.language),
        model=ModelRecord(**asdict(model.info)),
        backend=model.backend,
        adapter=adapter,
        generation=GenerationRecord(**asdict(generation)),
        seed=options.seed,
        batch_size=options.batch_size,
        loglikelihood=options.loglikelihood,
    )


def _fewshot_record(fewshot: FewShot) -> FewShotRecord:
    return FewShotRecord(
        data=fewshot.pool.name,
        split=fewshot.pool.split,
        sha256=fewshot.pool.sha256,
        ids=tuple(example.id for example in fewshot.examples),
    )


def run_key(settings: RunSettings, task: Task, prompts: Sequence[RenderedPrompt | None]) -> str:
    """Return the hash of everything that could change an output, but for the date in the chat template.

    Args:
        settings: as `run_settings` returns them.
        task: the run's task.
        prompts: rendered with a date that is the same for all runs.
    """
    template = settings.prompt.chat_template
    decisive = {
        **_plain(settings),
        "prompt": {
            **settings.prompt.to_json(),
            "sha256": prompts_sha256(prompts),
            "chat_template": template and template.kwargs,
        },
        # The plugin's release is left out: all that it decides is here, and its parser reads all completions again.
        "task": {"name": task.name, "version": task.version, "parameters": task.parameter_values},
        "adapter": settings.adapter and settings.adapter.id,
        "packages": package_versions(),
    }
    text = json.dumps(decisive, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", ESCAPED)).hexdigest()  # a file's name may hold half a surrogate pair


def _plain(settings: RunSettings) -> dict[str, Any]:
    return {
        "data": settings.data.to_json(),
        "model": settings.model.to_json(),
        "backend": settings.backend,
        "generation": settings.generation.to_json(),
        "seed": settings.seed,
        "batch_size": settings.batch_size,
        "loglikelihood": settings.loglikelihood,
    }


def prompts_sha256(prompts: Sequence[RenderedPrompt | None]) -> str:
    """Return the hash of all rendered prompts of a run, skipped ones included."""
    return hashlib.sha256("".join(prompt.sha256 if prompt else "-" for prompt in prompts).encode()).hexdigest()


def run_record(
    settings: RunSettings, prompts: Sequence[RenderedPrompt | None], key: str, metrics: Sequence[Metric]
) -> ModelRunRecord:
    """Return the record of a run before its first sample."""
    return ModelRunRecord(
        status="running",
        error=None,
        key=key,
        started=now(),
        finished=None,
        task=settings.task,
        prompt=settings.prompt.model_copy(update={"sha256": prompts_sha256(prompts)}),
        data=settings.data,
        model=settings.model,
        backend=settings.backend,
        adapter=settings.adapter,
        generation=settings.generation,
        seed=settings.seed,
        batch_size=settings.batch_size,
        loglikelihood=settings.loglikelihood,
        environment=environment(),
        timings=TimingsRecord(generate_seconds=0.0, loglikelihood_seconds=0.0, total_seconds=0.0),
        tokens=TokensRecord(prompt=0, completion=0, reasoning=0),
        quantization_loss=None,
        peak_memory_bytes=None,
        counts=None,
        samples_sha256=None,
        metrics=tuple(metric.name for metric in metrics),
        scores=(),
        output_checks=(),
        intervals=None,
        training=None,
    )


def task_record(task: Task, plugin: DiscoveredPlugin | None) -> TaskRecord:
    """Return the record of a task and where it came from."""
    return TaskRecord(
        name=task.name,
        version=task.version,
        plugin=plugin.name if plugin else None,
        distribution=plugin.distribution if plugin else None,
        distribution_version=plugin.version if plugin else None,
        parameters=task.parameter_values,
    )


def data_record(dataset: Dataset, *, limit: int | None, columns: Mapping[str, str], language: str | None) -> DataRecord:
    """Return the record of data: name, hash, and the options that it was read with."""
    return DataRecord(
        name=dataset.name,
        split=dataset.split,
        count=len(dataset.examples),
        sha256=dataset.sha256,
        file_sha256=dataset.file_sha256,
        limit=limit,
        columns=dict(columns),
        language=language,
    )


def chat_template_record(renderer: Renderer) -> ChatTemplateRecord | None:
    """Return the record of the chat template that a renderer uses; None: it uses none."""
    return ChatTemplateRecord.model_validate(renderer.template.record) if renderer.template else None


def quantization_loss_record(model: LanguageModel) -> QuantizationLossRecord | None:
    """Return the record of what quantizing a model costs; None: it is not quantized, or not measured yet."""
    loss = model.quantization_loss
    if loss is None:
        return None
    return QuantizationLossRecord(tokens=loss.tokens, baseline_ppl=loss.baseline_ppl, quantized_ppl=loss.quantized_ppl)


def add_seconds(record: ModelRunRecord, name: str, seconds: float) -> ModelRunRecord:
    """Return a record with more seconds in one of its timings."""
    total = round(getattr(record.timings, name) + seconds, 6)
    return record.model_copy(update={"timings": record.timings.model_copy(update={name: total})})


def score_fields(
    samples: Sequence[Sample], metrics: Iterable[Metric], *, resamples: int, seed: int
) -> tuple[dict[str, Any], list[LmtasksError]]:
    """Score samples.

    Args:
        samples: of a run, or outputs made elsewhere.
        metrics: to be computed.
        resamples: of the bootstrap for the intervals; 0: without intervals.
        seed: of the bootstrap.

    Returns:
        Fields of a run's record: scores, output checks, and how the intervals were computed. And what went wrong with
        metrics: it costs their scores alone.
    """
    metrics = tuple(metrics)
    failures: list[LmtasksError] = []
    scores = score_samples(samples, metrics, resamples=resamples, seed=seed, failures=failures)
    checks = score_outputs(samples, resamples=resamples, seed=seed)
    fields = {
        "metrics": tuple(metric.name for metric in metrics),
        "scores": tuple(map(ScoreRecord.of, scores)),
        "output_checks": tuple(map(ScoreRecord.of, checks)),
        "intervals": IntervalsRecord(
            method="bootstrap over examples, percentiles", confidence=CONFIDENCE, resamples=resamples, seed=seed
        ),
    }
    return fields, failures


def total_fields(samples: Sequence[Sample], reused: Collection[str] = ()) -> dict[str, Any]:
    """Return fields of a run's record: counts and tokens of all samples.

    Args:
        samples: of all sessions of the run.
        reused: ids of the samples of earlier sessions.
    """
    ran = [sample for sample in samples if sample.finish_reason != "skipped"]
    return {
        "counts": CountsRecord(
            examples=len(samples),
            scored=sum(bool(sample.references) for sample in ran),
            skipped=len(samples) - len(ran),
            unparsed=sum(sample.error is not None for sample in ran),
            empty=sum(is_empty(sample) for sample in ran),
            truncated_prompts=sum(bool(sample.truncated) for sample in ran),
            truncated_outputs=sum(sample.finish_reason == "length" for sample in ran),
            unanswered=sum(bool(sample.reasoning_tokens) and not sample.completion.strip() for sample in ran),
            reused=sum(sample.id in reused for sample in ran),
        ),
        "tokens": TokensRecord(
            prompt=sum(sample.prompt_tokens for sample in ran),
            completion=sum(sample.completion_tokens for sample in ran),
            reasoning=sum(sample.reasoning_tokens for sample in ran),
        ),
    }


def now() -> str:
    """Return the time, with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
