"""Running a task: render, generate, parse, keep each sample as it finishes, score, record."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from lmtasks.data import Dataset, FewShot
from lmtasks.errors import PluginError, PromptError
from lmtasks.inference import Completion, LanguageModel, Request
from lmtasks.languages import primary, states_language
from lmtasks.metrics import language_of, score_samples
from lmtasks.plugins import FoundPlugin
from lmtasks.progress import OnProgress
from lmtasks.prompts import OverlongPromptError, RenderedPrompt, Renderer
from lmtasks.runs.environment import environment, package_versions, peak_memory_bytes
from lmtasks.runs.folder import (
    SCHEMA,
    Run,
    append_samples,
    claim_folder,
    mend_samples,
    read_samples,
    rewrite_samples,
    write_record,
)
from lmtasks.runs.options import RunOptions
from lmtasks.task import Example, Generation, Metric, Sample, Task

log = logging.getLogger("lmtasks.runs")
LOOKED_AT = 500
"""Examples that are looked at to warn of a language that the model does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run with everything that can be checked before a model is loaded."""

    task: Task
    plugin: FoundPlugin | None
    """Where the task comes from; None: it was handed over from Python."""
    dataset: Dataset
    fewshot: FewShot | None
    metrics: tuple[Metric, ...]
    options: RunOptions
    generation: Generation


def run_plan(
    plan: Plan, model: LanguageModel, *, on_progress: OnProgress, on_end: Callable[[Path], None] = lambda _: None
) -> Run:
    """Run a task with a model, into a run folder.

    An unfinished run of the same plan in the same output folder is continued: its samples are not made again.

    Args:
        plan: what was checked before.
        model: answers the prompts.
        on_progress: hears how far it is.
        on_end: hears of the run folder when the run has ended, in whatever way.

    Raises:
        PromptError: prompts do not fit the model and may not be cut or skipped; nothing was generated.
        PluginError: the task's parser or a metric failed; the samples made so far are kept.
        RunError: the run folder cannot be written.
    """
    started = time.perf_counter()
    fewshot = plan.fewshot.examples if plan.fewshot else ()
    renderer = Renderer(plan.task, model.tokenizer, prompt=plan.options.prompt, fewshot=fewshot)
    generation = stopping(plan.generation, renderer)
    prompts = _render(plan, renderer, room_for_prompt(model, generation), on_progress)
    _warn_of_language(plan, model)
    record = _record(plan, renderer, model, generation, prompts)
    source = Path(model.info.name)
    name = f"{plan.task.name}-{source.name or source.resolve().name}"
    with claim_folder(Path(plan.options.output_dir), name, str(record["key"])) as (path, before):
        if before:
            record["timings"]["generate_seconds"] = before["timings"]["generate_seconds"]
        write_record(path, record)
        reused: set[str] = set()
        try:
            reused = _take_over(plan.task, path)
            _generate(plan, model, generation, prompts, reused, path, record, on_progress)
            record["scores"] = [asdict(score) for score in score_samples(list(read_samples(path)), plan.metrics)]
            record["status"] = "finished"
        except KeyboardInterrupt:
            record["status"] = "interrupted"
            raise
        except BaseException as error:
            record["status"] = "failed"
            record["error"] = f"{type(error).__name__}: {error}"
            raise
        finally:
            record |= _totals(path, reused)
            record["finished"] = _now()
            record["timings"]["total_seconds"] = round(time.perf_counter() - started, 3)
            record["peak_memory_bytes"] = peak_memory_bytes()
            write_record(path, record)
            on_end(path)
    return Run(path)


def stopping(generation: Generation, renderer: Renderer) -> Generation:
    """Return a way to draw completions that also stops where the prompt's form ends an answer."""
    return replace(generation, stop=tuple(dict.fromkeys((*generation.stop, *renderer.stop))))


def room_for_prompt(model: LanguageModel, generation: Generation) -> int | None:
    """Return how many tokens a prompt may have; None: as many as it likes.

    Raises:
        PromptError: the answer alone would fill the model's context.
    """
    context = model.info.context_length
    if context is None:
        return None
    if generation.max_new_tokens >= context:
        raise PromptError(
            f"max_new_tokens {generation.max_new_tokens} leaves no room for a prompt: {model.info.name} has a"
            f" context of {context} tokens"
        )
    return context - generation.max_new_tokens


def _render(plan: Plan, renderer: Renderer, room: int | None, on_progress: OnProgress) -> list[RenderedPrompt | None]:
    """Render all prompts; None stands for one that is skipped."""
    prompts: list[RenderedPrompt | None] = []
    overlong: list[OverlongPromptError] = []
    for number, example in enumerate(plan.dataset.examples):
        if number and number % 1000 == 0:
            on_progress(f"rendering {plan.task.name}", number, len(plan.dataset.examples))
        try:
            prompts.append(renderer.render_within(example, room, on_overlong=plan.options.on_overlong))
        except OverlongPromptError as error:
            prompts.append(None)
            overlong.append(error)
    if overlong and plan.options.on_overlong != "skip":
        ways = "skip" if plan.options.on_overlong == "cut" else "cut or --on-overlong skip"
        raise PromptError(
            f"{len(overlong)} of {len(prompts)} prompts are too long. The first: {overlong[0]}. Use --on-overlong"
            f" {ways}, fewer few-shot examples, or a model with a longer context"
        )
    return prompts


def _take_over(task: Task, path: Path) -> set[str]:
    """Make the samples of an interrupted run ours, and return their ids.

    They are parsed again: what interrupted the run may have been the parser, mended since.
    """
    mend_samples(path)
    samples = list(read_samples(path))
    parsed = [
        replace(sample, prediction=parse_completion(task, sample.completion, sample.id))
        if sample.finish != "skipped"
        else sample
        for sample in samples
    ]
    if parsed != samples:
        rewrite_samples(path, parsed)
    return {sample.id for sample in samples}


def _generate(
    plan: Plan,
    model: LanguageModel,
    generation: Generation,
    prompts: Sequence[RenderedPrompt | None],
    done: set[str],
    path: Path,
    record: dict[str, Any],
    on_progress: OnProgress,
) -> None:
    examples = plan.dataset.examples
    left = [index for index, example in enumerate(examples) if example.id not in done]
    skipped = [index for index in left if prompts[index] is None]
    append_samples(path, [_sample(plan.task, index, examples[index], None, None) for index in skipped])
    todo = [(index, prompt) for index in left if (prompt := prompts[index]) is not None]
    requests = [Request(examples[index].id, prompt.token_ids) for index, prompt in todo]
    begun, before = time.perf_counter(), record["timings"]["generate_seconds"]
    finished = len(examples) - len(todo)
    what = f"running {plan.task.name}"
    on_progress(what, finished, len(examples))
    answers = model.generate(requests, generation, seed=plan.options.seed, batch_size=plan.options.batch_size)
    for together in answers:
        append_samples(
            path,
            # One by one, so that those before one that cannot be parsed are kept.
            (_sample(plan.task, todo[at][0], examples[todo[at][0]], todo[at][1], answer) for at, answer in together),
        )
        finished += len(together)
        record["timings"]["generate_seconds"] = round(before + time.perf_counter() - begun, 3)
        write_record(path, record)  # a kill must not lose the time that these samples took
        on_progress(what, finished, len(examples))


def parse_completion(task: Task, completion: str, example_id: str) -> str:
    """Return the prediction that a task reads from a completion.

    Raises:
        PluginError: the task's parser failed or returned something else than text.
    """
    try:
        prediction = task.parse(completion)
    except Exception as error:
        raise PluginError(
            f'task "{task.name}": its parser failed on example "{example_id}": {type(error).__name__}: {error}'
        ) from error
    if not isinstance(prediction, str):
        raise PluginError(
            f'task "{task.name}": its parser returned {type(prediction).__name__} for example "{example_id}",'
            " expected text"
        )
    return prediction


def _sample(
    task: Task, index: int, example: Example, prompt: RenderedPrompt | None, completion: Completion | None
) -> Sample:
    """Join an example with what the model wrote; without prompt and completion it was skipped."""
    sample = Sample(
        index=index,
        id=example.id,
        inputs=example.inputs,
        references=example.references,
        language=_stated(task, example),
        meta=example.meta,
        prediction="",
        finish="skipped",
    )
    if prompt is None or completion is None:
        return sample
    return replace(
        sample,
        prompt_sha256=prompt.sha256,
        prompt_tokens=len(prompt.token_ids),
        cut=prompt.cut,
        completion=completion.text,
        prediction=parse_completion(task, completion.text, example.id),
        finish=completion.finish,
        completion_tokens=completion.tokens,
    )


def _totals(path: Path, reused: set[str]) -> dict[str, dict[str, int]]:
    """Return counts and tokens of all samples of a run, whatever session made them."""
    samples = list(read_samples(path))
    ran = [sample for sample in samples if sample.finish != "skipped"]
    return {
        "counts": {
            "examples": len(samples),
            "scored": sum(bool(sample.references) for sample in ran),
            "skipped": len(samples) - len(ran),
            "empty": sum(not sample.prediction for sample in ran),
            "cut": sum(bool(sample.cut) for sample in ran),
            "unfinished": sum(sample.finish == "length" for sample in ran),
            "reused": sum(sample.id in reused for sample in ran),
        },
        "tokens": {
            "prompt": sum(sample.prompt_tokens for sample in ran),
            "completion": sum(sample.completion_tokens for sample in ran),
        },
    }


def _stated(task: Task, example: Example) -> str | None:
    """Return the language of an example's references, if it or its task states one."""
    return example.language if states_language(example.language) else task.language


def _warn_of_language(plan: Plan, model: LanguageModel) -> None:
    known = model.info.languages
    if not known:
        return
    # A look at some of them is enough for a warning.
    examples = plan.dataset.examples[:: max(1, len(plan.dataset.examples) // LOOKED_AT)]
    languages = Counter(primary(_stated(plan.task, example) or language_of(example)) for example in examples)
    foreign = {language: count for language, count in languages.items() if language not in (*known, "und")}
    if foreign:
        listed = ", ".join(f"{count} in {language}" for language, count in sorted(foreign.items()))
        log.warning(
            "%s writes %s; of %d examples looked at, %s: expect nonsense there",
            model.info.name,
            ", ".join(known),
            len(examples),
            listed,
        )


def _record(
    plan: Plan,
    renderer: Renderer,
    model: LanguageModel,
    generation: Generation,
    prompts: Sequence[RenderedPrompt | None],
) -> dict[str, Any]:
    """Return run.json as it stands before the first sample."""
    rendered = hashlib.sha256("".join(prompt.sha256 if prompt else "-" for prompt in prompts).encode())
    options, dataset, fewshot = plan.options, plan.dataset, plan.fewshot
    decisive: dict[str, object] = {
        "task": {
            "name": plan.task.name,
            "version": plan.task.version,
            "plugin": plan.plugin.name if plan.plugin else None,
            "distribution": plan.plugin.distribution if plan.plugin else None,
            "distribution_version": plan.plugin.version if plan.plugin else None,
        },
        "prompt": {
            "name": renderer.name,
            "form": "chat" if renderer.chat else "plain",
            "sha256": rendered.hexdigest(),
            "on_overlong": options.on_overlong,
            "fewshot": fewshot
            and {
                "data": fewshot.pool.name,
                "split": fewshot.pool.split,
                "sha256": fewshot.pool.sha256,
                "ids": [example.id for example in fewshot.examples],
            },
        },
        "data": {
            "name": dataset.name,
            "split": dataset.split,
            "count": len(dataset.examples),
            "sha256": dataset.sha256,
            "file_sha256": dataset.file_sha256,
            "limit": options.limit,
            "columns": dict(options.columns),
            "language": options.language,
        },
        "model": asdict(model.info),
        "generation": asdict(generation),
        "seed": options.seed,
        "batch_size": options.batch_size,
    }
    return {
        "schema": SCHEMA,
        "status": "running",
        "error": None,
        "key": _key({**decisive, "packages": package_versions()}),
        "started": _now(),
        "finished": None,
        **decisive,
        "environment": environment(),
        "timings": {"generate_seconds": 0.0, "total_seconds": 0.0},
        "tokens": {"prompt": 0, "completion": 0},
        "peak_memory_bytes": None,
        "counts": {},
        "scores": [],
    }


def _key(decisive: Mapping[str, object]) -> str:
    """Return the hash of everything that could change an output."""
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
