"""Running a task: render, generate, parse, keep each sample as it finishes, score, record."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lmtasks.data import Dataset, FewShot
from lmtasks.errors import LmtasksError, PluginError, PromptError
from lmtasks.inference import Completion, LanguageModel, Request
from lmtasks.languages import primary
from lmtasks.metrics import language_of
from lmtasks.metrics.statistics import RESAMPLES, SEED
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
from lmtasks.runs.likelihood import likely_texts, measure_likelihoods, render_answers
from lmtasks.runs.options import RunOptions
from lmtasks.runs.record import data_record, now, scores_record, stated_language, task_record, totals_record
from lmtasks.task import Example, Generation, LogLikelihood, Metric, Sample, Task

MEASURING = ("generate_seconds", "loglikelihood_seconds")
"""What the model was used for."""
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
    answers = render_answers(plan.task, plan.dataset.examples, renderer) if plan.options.loglikelihood else {}
    prompts = _render(plan, renderer, model, generation, answers, on_progress)
    _warn_of_language(plan, model)
    record = _record(plan, renderer, model, generation, prompts)
    source = Path(model.info.name)
    name = f"{plan.task.name}-{source.name or source.resolve().name}"
    with claim_folder(Path(plan.options.output_dir), name, str(record["key"])) as (path, before):
        if before:
            record["timings"] |= {name: before["timings"].get(name, 0.0) for name in MEASURING}
        write_record(path, record)
        reused: set[str] = set()
        try:
            reused = _take_over(plan.task, path)
            _generate(plan, model, generation, prompts, answers, reused, path, record, on_progress)
            samples = sorted(read_samples(path), key=lambda sample: sample.index)
            record |= scores_record(samples, plan.metrics, resamples=RESAMPLES, seed=SEED)
            record["status"] = "finished"
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            record["status"] = "interrupted" if interrupted else "failed"
            record["error"] = None if interrupted else f"{type(error).__name__}: {error}"
            try:
                _close(path, record, reused, started, on_end)
            except LmtasksError as further:
                log.warning("%s", further)  # what went wrong first is what has to be told
            raise
        _close(path, record, reused, started, on_end)
    return Run(path)


def _close(
    path: Path, record: dict[str, Any], reused: set[str], started: float, on_end: Callable[[Path], None]
) -> None:
    """Complete the record of a run that has ended, and tell of it."""
    record["finished"] = now()
    record["timings"]["total_seconds"] = round(time.perf_counter() - started, 3)
    record["peak_memory_bytes"] = peak_memory_bytes()
    write_record(path, record)  # how it ended is kept, even if its samples cannot be read
    record |= totals_record(list(read_samples(path)), reused)
    write_record(path, record)
    on_end(path)


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


def _render(
    plan: Plan,
    renderer: Renderer,
    model: LanguageModel,
    generation: Generation,
    answers: Mapping[str, Sequence[int]],
    on_progress: OnProgress,
) -> list[RenderedPrompt | None]:
    """Render all prompts; None stands for one that is skipped."""
    room, context = room_for_prompt(model, generation), model.info.context_length
    prompts: list[RenderedPrompt | None] = []
    overlong: list[OverlongPromptError] = []
    for number, example in enumerate(plan.dataset.examples):
        if number and number % 1000 == 0:
            on_progress(f"rendering {plan.task.name}", number, len(plan.dataset.examples))
        # A reference whose likelihood is measured takes the place of an answer, and may be longer than one.
        texts = likely_texts(plan.task, example) if answers else ()
        longest = max((len(answers[text]) for text in texts), default=0)
        own_room = None if room is None or context is None else max(0, min(room, context - longest))
        try:
            prompts.append(renderer.render_within(example, own_room, on_overlong=plan.options.on_overlong))
        except OverlongPromptError as error:
            prompts.append(None)
            beside = ""
            if own_room != room:
                beside = f" of {context} beside a reference of {longest} tokens (--loglikelihood)"
            overlong.append(OverlongPromptError(f"{error}{beside}"))
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
    answers: Mapping[str, Sequence[int]],
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
    finished = len(examples) - len(todo)
    what = f"running {plan.task.name}"
    on_progress(what, finished, len(examples))
    timings, begun = record["timings"], time.perf_counter()
    completions = model.generate(requests, generation, seed=plan.options.seed, batch_size=plan.options.batch_size)
    for together in completions:
        timings["generate_seconds"] = round(timings["generate_seconds"] + time.perf_counter() - begun, 6)
        begun = time.perf_counter()
        asked = [(examples[todo[at][0]], todo[at][1]) for at, _ in together]
        likelihoods = measure_likelihoods(plan.task, asked, model, answers, batch_size=plan.options.batch_size)
        timings["loglikelihood_seconds"] = round(timings["loglikelihood_seconds"] + time.perf_counter() - begun, 6)
        begun = time.perf_counter()
        append_samples(
            path,
            # One by one, so that those before one that cannot be parsed are kept.
            (
                _sample(plan.task, todo[at][0], examples[todo[at][0]], todo[at][1], completion, likely)
                for (at, completion), likely in zip(together, likelihoods, strict=True)
            ),
        )
        finished += len(together)
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
    task: Task,
    index: int,
    example: Example,
    prompt: RenderedPrompt | None,
    completion: Completion | None,
    loglikelihoods: tuple[LogLikelihood, ...] = (),
) -> Sample:
    """Join an example with what the model wrote; without prompt and completion it was skipped."""
    sample = Sample(
        index=index,
        id=example.id,
        inputs=example.inputs,
        references=example.references,
        language=stated_language(task, example.language),
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
        loglikelihoods=loglikelihoods,
    )


def _warn_of_language(plan: Plan, model: LanguageModel) -> None:
    known = model.info.languages
    if not known:
        return
    # A look at some of them is enough for a warning.
    examples = plan.dataset.examples[:: max(1, len(plan.dataset.examples) // LOOKED_AT)]
    languages = Counter(
        primary(stated_language(plan.task, example.language) or language_of(example)) for example in examples
    )
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
        "task": task_record(plan.task, plan.plugin),
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
        "data": data_record(dataset, limit=options.limit, columns=options.columns, language=options.language),
        "model": asdict(model.info),
        "generation": asdict(generation),
        "seed": options.seed,
        "batch_size": options.batch_size,
        "loglikelihood": options.loglikelihood,
    }
    return {
        "schema": SCHEMA,
        "status": "running",
        "error": None,
        "key": _key({**decisive, "packages": package_versions()}),
        "started": now(),
        "finished": None,
        **decisive,
        "environment": environment(),
        "timings": {**dict.fromkeys(MEASURING, 0.0), "total_seconds": 0.0},
        "tokens": {"prompt": 0, "completion": 0},
        "peak_memory_bytes": None,
        "counts": {},
        "metrics": [metric.name for metric in plan.metrics],
        "scores": [],
        "health": [],
    }


def _key(decisive: Mapping[str, object]) -> str:
    """Return the hash of everything that could change an output."""
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
