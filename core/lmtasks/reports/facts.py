"""Facts of runs and trainings, by name, as text without markup."""

from __future__ import annotations

from collections.abc import Mapping

from lmtasks.records.adapter import AdapterRecord
from lmtasks.records.parts import ChatTemplateRecord
from lmtasks.records.run import ModelRunRecord, OutputsRunRecord, UsedAdapterRecord
from lmtasks.reports.formats import duration
from lmtasks.reports.view import COUNTS, counted, quantization_loss

BACKEND_LABELS = {
    "native": "native (continuous batching)",
    "hf-generate": "hf-generate (generate of transformers, padded batches)",
}
"""Backends for people, by their name in a run's record."""

Facts = dict[str, str]


def output_facts(record: ModelRunRecord | OutputsRunRecord) -> list[str]:
    """Return lines on the outputs of a run: counts, speed, memory."""
    counts, total = record.counts, record.data.count
    if counts is None:
        return []
    lines = [f"{counts.scored} of {total} with references, scored"]
    if not isinstance(record, ModelRunRecord):
        return [*lines, f"{counts.empty} of {total} {COUNTS['empty']}"]
    lines += [f"{getattr(counts, name)} of {total} {meaning}" for name, meaning in COUNTS.items()]
    lines.append(f"{counts.reused} of {total} reused from an interrupted run")
    seconds, tokens = record.timings.generate_seconds, record.tokens
    generated = counts.examples - counts.skipped
    if seconds and generated:
        lines.append(
            f"{seconds:.1f} s of generation: {generated / seconds:.2f} examples/s, {tokens.completion / seconds:.1f}"
            f" new tokens/s after {tokens.prompt} prompt tokens"
        )
    if tokens.reasoning:
        lines.append(f"{tokens.reasoning} of {tokens.completion} new tokens are reasoning, which no score sees")
    if record.peak_memory_bytes:
        lines.append(f"{record.peak_memory_bytes / 2**30:.2f} GiB peak memory of the process")
    return lines


def provenance(record: ModelRunRecord | OutputsRunRecord) -> Facts:
    """Return what a run was made from: task, model, data, settings, versions, machine."""
    task, data, machine, intervals = record.task, record.data, record.environment, record.intervals
    origin = f"{task.distribution} {task.distribution_version}" if task.distribution else "Python"
    if isinstance(record, ModelRunRecord):
        source = _model_facts(record)
    else:
        source = {"outputs": f"{record.model.name}, {record.model.revision}"}
    return _present(
        {
            "task": f"{task.name}, version {task.version}, from {origin}",
            "parameters": _settings(task.parameters),
            **source,
            "data": f"{data.name}, SHA-256 of the examples {data.sha256}",
            "data file": data.file_sha256 and f"SHA-256 {data.file_sha256}",
            "samples": record.samples_sha256 and f"SHA-256 {record.samples_sha256}",
            "intervals": intervals and f"{intervals.method}, {intervals.resamples} resamples, seed {intervals.seed}",
            "versions": _settings(machine.packages),
            "machine": f"Python {machine.python}, {machine.platform}, {machine.cpu_count} CPUs",
            "git": machine.git
            and f"commit {machine.git.commit}{', with uncommitted changes' if machine.git.dirty else ''}",
        }
    )


def _model_facts(record: ModelRunRecord) -> dict[str, str | None]:
    model, prompt, fewshot = record.model, record.prompt, record.prompt.fewshot
    size = f"{model.architecture}, {model.parameters:,} parameters"
    return {
        "model": f"{model.name} ({size}, from {model.source})",
        "weights": model.revision,
        "adapter": _adapter(record.adapter) if record.adapter else None,
        "backend": BACKEND_LABELS.get(record.backend, record.backend),
        "precision": f"{model.dtype} on {model.device}{_quantization(record)}",
        "prompts": f"SHA-256 {prompt.sha256} of all rendered prompts",
        "chat template": _chat_template(prompt.chat_template),
        "few-shot": f"{len(fewshot.ids)} of {fewshot.data} ({fewshot.split}): {', '.join(fewshot.ids)}"
        if fewshot
        else None,
        "generation": ", ".join(f"{name} {value!r}" for name, value in record.generation.to_json().items()),
        "seed": str(record.seed),
        "remote code": "allowed" if model.remote_code else None,
    }


def training_facts(record: AdapterRecord) -> Facts:
    """Return what an adapter was trained on, and how."""
    training, data, settings = record.training, record.data, record.settings
    kept = f"checkpoint of step {training.best_step} kept"
    if training.validation_loss is not None:
        kept += (
            f", the best on {counted(training.validation_examples, 'validation example')}:"
            f" {training.validation_loss:.4f}"
        )
    resumed = f", resumed at step {training.resumed_at}" if training.resumed_at else ""
    batch = f"{settings.batch_tokens} tokens" if settings.batch_tokens else f"{settings.batch_size} examples"
    return _present(
        {
            "training data": f"{counted(training.examples, 'example')} of {data.label}, SHA-256 {data.sha256}",
            "skipped": training.skipped and f"{counted(training.skipped, 'example')}, too long",
            "overlap removed": training.overlap_removed
            and f"{counted(training.overlap_removed, 'example')} that are also in the evaluation data, except for"
            " space, case, width or invisible characters",
            "truncated": training.truncated
            and f"{counted(training.truncated, 'prompt')}, to {settings.max_length} tokens with their answer",
            "steps": f"{training.steps} of {training.planned_steps}{resumed}, {training.epochs:.2f} epochs; {kept}",
            "duration": f"{duration(training.seconds)} for {training.tokens} tokens"
            f" ({training.tokens / max(training.seconds, 1e-9):.0f} tokens/s), {training.processes}"
            f" process{'es' if training.processes > 1 else ''}, {'packed' if training.packed else 'padded'}",
            "LoRA": lora_facts(record),
            "optimizer": f"{settings.optimizer}, learning rate {settings.learning_rate:g}, {settings.schedule}, warm-up"
            f" {settings.warmup:g}, weight decay {settings.weight_decay:g}, gradients clipped at"
            f" {settings.max_grad_norm:g}, {batch} a step",
            "seed": str(settings.seed),
        }
    )


def lora_facts(record: AdapterRecord) -> str:
    """Return the shape of an adapter: rank, alpha, variants, modules, number of weights."""
    settings = record.settings
    variants = "".join(f", {name}" for name, used in (("rsLoRA", settings.rslora), ("DoRA", settings.dora)) if used)
    return (
        f"rank {settings.rank}, alpha {settings.alpha:g}{variants}, dropout {settings.dropout:g},"
        f" {', '.join(settings.target_modules)}; {record.training.trainable_weights:,} weights"
    )


def _adapter(adapter: UsedAdapterRecord) -> str:
    trained = f"trained for {adapter.task}, " if adapter.task else ""
    variants = "".join(f", {name}" for name, used in (("rsLoRA", adapter.rslora), ("DoRA", adapter.dora)) if used)
    return (
        f"{adapter.source} ({trained}rank {adapter.rank}, alpha {adapter.alpha:g}{variants}), SHA-256"
        f" {adapter.sha256}; changes logits by up to {adapter.max_logit_change:.2f}"
    )


def _quantization(record: ModelRunRecord) -> str:
    if record.model.quantize == "none":
        return ""
    loss = f" ({quantization_loss(record.quantization_loss)})" if record.quantization_loss else ""
    return f", linear layers quantized to {record.model.quantize}{loss}"


def _chat_template(template: ChatTemplateRecord | None) -> str:
    if template is None:
        return ""
    return _settings({**template.kwargs, **({"date": template.date} if template.date else {})})


def _settings(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _present(values: Mapping[str, object]) -> Facts:
    """Return the facts that have a value."""
    return {name: str(value) for name, value in values.items() if value not in (None, 0, "")}
