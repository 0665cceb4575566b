"""Running a task: render, generate, parse, keep each sample as it finishes, score, record."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lmtasks.data import Dataset, FewShot
from lmtasks.errors import LmtasksError, PluginError, PromptError
from lmtasks.foreign import foreign
from lmtasks.inference import Completion, LanguageModel, Request
from lmtasks.languages import primary
from lmtasks.metrics import language_of
from lmtasks.metrics.statistics import RESAMPLES, SEED
from lmtasks.model.adapter import Adapter
from lmtasks.plugins import FoundPlugin
from lmtasks.progress import OnProgress
from lmtasks.prompts import OverlongPromptError, RenderedPrompt, Renderer
from lmtasks.runs.adapters import AdapterChoice, adapter_record, put_on
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

OnFailure = Callable[[LmtasksError], None]
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
    adapter: AdapterChoice | None = None


@dataclass(slots=True, kw_only=True)
class _Job:
    """A run under way."""

    plan: Plan
    adapter: Adapter | None
    generation: Generation
    prompts: Sequence[RenderedPrompt | None]
    answers: Mapping[str, Sequence[int]]
    record: dict[str, Any]
    path: Path = Path()
    reused: set[str] = field(default_factory=set)
    finished: int = 0
    """Examples that are done."""

    @property
    def adapter_id(self) -> str | None:
        """By which the model knows the adapter that answers."""
        return self.adapter.id if self.adapter else None


def run_plan(
    plan: Plan, model: LanguageModel, *, on_progress: OnProgress, on_end: Callable[[Path], None] = lambda _: None
) -> Run:
    """Run a task with a model, into a run folder; see `run_plans`."""
    return run_plans([plan], model, on_progress=on_progress, on_end=on_end)[0]


def run_plans(
    plans: Sequence[Plan],
    model: LanguageModel,
    *,
    on_progress: OnProgress,
    on_end: Callable[[Path], None] = lambda _: None,
    on_failure: OnFailure | None = None,
) -> list[Run]:
    """Run tasks with a model and an adapter each, into a run folder each; their examples share batches.

    An unfinished run of the same plan in the same output folder is continued: its samples are not made again.

    Args:
        plans: what was checked before; of one seed and batch size.
        model: answers the prompts.
        on_progress: hears how far it is.
        on_end: hears of each run folder when its run has ended, in whatever way.
        on_failure: hears of each run whose parser or metric failed, which costs it examples or scores, and the others
            nothing; None: the first one is raised when all have ended.

    Raises:
        AdapterError: an adapter does not fit the model.
        PromptError: prompts do not fit the model and may not be cut or skipped; nothing was generated.
        PluginError: a task's parser or a metric failed; the samples made so far are kept.
        RunError: a run folder cannot be written.
    """
    started = time.perf_counter()
    jobs = [_prepare(plan, model, on_progress) for plan in plans]
    alone = [job.adapter.source for job in jobs if job.adapter and not job.adapter.shares_batches]
    if alone and len(jobs) > 1:
        log.warning("an adapter with DoRA cannot share batches with others: %s runs alone", ", ".join(alone))
    source = Path(model.info.name)
    with ExitStack() as folders:
        ending: list[_Job] = []
        try:
            for job in jobs:
                name = f"{job.plan.task.name}-{source.name or source.resolve().name}"
                claimed = claim_folder(Path(job.plan.options.output_dir), name, str(job.record["key"]))
                job.path, before = folders.enter_context(claimed)
                ending.append(job)
                if before:
                    job.record["rounding"] = before.get("rounding")
                    job.record["timings"] |= {name: before["timings"].get(name, 0.0) for name in MEASURING}
                write_record(job.path, job.record)
            for job in jobs:
                job.reused = _take_over(job.plan.task, job.path)
            _generate(jobs, model, on_progress)
            failed: list[LmtasksError] = []
            while ending:
                failed += _score(ending[0])
                _close(ending.pop(0), started, on_end)
            for error in failed:
                if on_failure is None:
                    raise error
                on_failure(error)
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            for job in ending:
                job.record["status"] = "interrupted" if interrupted else "failed"
                job.record["error"] = None if interrupted else f"{type(error).__name__}: {error}"
                try:
                    _close(job, started, on_end)
                except LmtasksError as further:
                    log.warning("%s", further)  # what went wrong first is what has to be told
            raise
    return [Run(job.path) for job in jobs]


def _prepare(plan: Plan, model: LanguageModel, on_progress: OnProgress) -> _Job:
    """Render the prompts of a run, and say what will be recorded of it."""
    fewshot = plan.fewshot.examples if plan.fewshot else ()
    renderer = Renderer(plan.task, model.tokenizer, prompt=plan.options.prompt, fewshot=fewshot)
    adapter = put_on(plan.adapter, model, plan.task, renderer)
    generation = stopping(plan.generation, renderer, adapter)
    answers = render_answers(plan.task, plan.dataset.examples, renderer) if plan.options.loglikelihood else {}
    prompts = _render(plan, renderer, model, generation, answers, on_progress)
    _warn_of_language(plan, model, adapter)
    record = _record(plan, renderer, model, generation, prompts, adapter_record(adapter, model))
    return _Job(plan=plan, adapter=adapter, generation=generation, prompts=prompts, answers=answers, record=record)


def _score(job: _Job) -> list[LmtasksError]:
    """Score a run whose samples are all there; return what its task or metrics failed at, in one error."""
    samples = sorted(read_samples(job.path), key=lambda sample: sample.index)
    failures: list[LmtasksError] = []
    job.record |= scores_record(samples, job.plan.metrics, resamples=RESAMPLES, seed=SEED, failures=failures)
    if unread := [sample.error for sample in samples if sample.error]:
        rest = f", and {len(unread) - 1} more" if len(unread) > 1 else ""
        failures.insert(0, PluginError(f"{unread[0]}{rest}; they count as empty"))
    if not failures:
        job.record["status"] = "finished"
        return []
    more = "".join(f"; {error}" for error in failures[1:])
    error = PluginError(f"{failures[0]}{more}. All texts are kept in {job.path}: run it again once that is mended")
    error.__cause__ = failures[0].__cause__
    job.record |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    return [error]


def _close(job: _Job, started: float, on_end: Callable[[Path], None]) -> None:
    """Complete the record of a run that has ended, and tell of it."""
    path, record = job.path, job.record
    record["finished"] = now()
    record["timings"]["total_seconds"] = round(time.perf_counter() - started, 3)
    record["peak_memory_bytes"] = peak_memory_bytes()
    write_record(path, record)  # how it ended is kept, even if its samples cannot be read
    record |= totals_record(list(read_samples(path)), job.reused)
    write_record(path, record)
    on_end(path)


def stopping(generation: Generation, renderer: Renderer, adapter: Adapter | None) -> Generation:
    """Return a way to draw completions that also stops where the prompt's form ends an answer."""
    if adapter and adapter.record:
        return generation  # it has learned to end its answers, which may hold what separates examples
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
    parsed = [_parsed(task, sample) if sample.finish != "skipped" else sample for sample in samples]
    if parsed != samples:
        rewrite_samples(path, parsed)
    return {sample.id for sample in samples}


def _generate(jobs: Sequence[_Job], model: LanguageModel, on_progress: OnProgress) -> None:
    """Answer all prompts that are left, and keep each sample as it finishes."""
    todo: list[tuple[_Job, int, RenderedPrompt]] = []
    for job in jobs:
        examples = job.plan.dataset.examples
        left = [index for index, example in enumerate(examples) if example.id not in job.reused]
        skipped = [index for index in left if job.prompts[index] is None]
        append_samples(job.path, [_sample(job.plan.task, index, examples[index], None, None) for index in skipped])
        own = [(job, index, prompt) for index in left if (prompt := job.prompts[index]) is not None]
        job.finished = len(examples) - len(own)
        todo += own
    options = jobs[0].plan.options
    requests = [
        Request(job.plan.dataset.examples[index].id, prompt.token_ids, job.generation, job.adapter_id)
        for job, index, prompt in todo
    ]
    what = f"running {', '.join(job.plan.task.name for job in jobs)}"
    total = sum(len(job.prompts) for job in jobs)
    on_progress(what, total - len(todo), total)
    begun = time.perf_counter()
    for together in model.generate(requests, seed=options.seed, batch_size=options.batch_size):
        if model.rounding:
            for job in jobs:
                job.record["rounding"] = asdict(model.rounding)
        seconds = (time.perf_counter() - begun) / len(together)
        for job in jobs:
            own_places = [(at, completion) for at, completion in together if todo[at][0] is job]
            if own_places:
                _add_seconds(job, "generate_seconds", seconds * len(own_places))
                _keep(job, [(*todo[at][1:], completion) for at, completion in own_places], model)
        on_progress(what, sum(job.finished for job in jobs), total)
        begun = time.perf_counter()


def _keep(job: _Job, answered: Sequence[tuple[int, RenderedPrompt, Completion]], model: LanguageModel) -> None:
    """Measure what else is asked of examples that were answered, and write their samples."""
    task, examples = job.plan.task, job.plan.dataset.examples
    begun = time.perf_counter()
    likelihoods = measure_likelihoods(
        task,
        [(examples[index], prompt) for index, prompt, _ in answered],
        model,
        job.answers,
        adapter=job.adapter_id,
        batch_size=job.plan.options.batch_size,
    )
    _add_seconds(job, "loglikelihood_seconds", time.perf_counter() - begun)
    append_samples(
        job.path,
        [
            _sample(task, index, examples[index], prompt, completion, likely)
            for (index, prompt, completion), likely in zip(answered, likelihoods, strict=True)
        ],
    )
    job.finished += len(answered)
    write_record(job.path, job.record)  # a kill must not lose the time that these samples took


def _add_seconds(job: _Job, name: str, seconds: float) -> None:
    job.record["timings"][name] = round(job.record["timings"][name] + seconds, 6)


def parse_completion(task: Task, completion: str, example_id: str) -> str:
    """Return the prediction that a task reads from a completion.

    Raises:
        PluginError: the task's parser failed or returned something else than text.
    """
    with foreign(f'{task.label}: its parser failed on example "{example_id}"'):
        prediction = task.parse(completion)
    if not isinstance(prediction, str):
        raise PluginError(
            f'{task.label}: its parser returned {type(prediction).__name__} for example "{example_id}", expected text'
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
    answered = replace(
        sample,
        prompt_sha256=prompt.sha256,
        prompt_tokens=len(prompt.token_ids),
        cut=prompt.cut,
        completion=completion.text,
        finish=completion.finish,
        completion_tokens=completion.tokens,
        loglikelihoods=loglikelihoods,
    )
    return _parsed(task, answered)


def _parsed(task: Task, sample: Sample) -> Sample:
    """Return a sample with what its task reads from the completion; a parser that fails costs this one alone."""
    try:
        return replace(sample, prediction=parse_completion(task, sample.completion, sample.id), error=None)
    except PluginError as error:
        log.debug("%s", error, exc_info=error)
        return replace(sample, prediction="", error=str(error))


def _warn_of_language(plan: Plan, model: LanguageModel, adapter: Adapter | None) -> None:
    known = model.info.languages
    if not known or adapter:  # an adapter may have taught it another
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
    adapter: dict[str, Any] | None,
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
        "engine": model.engine,
        "adapter": adapter,
        "generation": asdict(generation),
        "seed": options.seed,
        "batch_size": options.batch_size,
        "loglikelihood": options.loglikelihood,
    }
    return {
        "schema": SCHEMA,
        "status": "running",
        "error": None,
        "key": _key(
            {
                **decisive,
                # Not which release of the plugin: all else that it decides is here, and its parser reads all anew.
                "task": {"name": plan.task.name, "version": plan.task.version, "parameters": plan.task.settings},
                "adapter": adapter and adapter["id"],
                "packages": package_versions(),
            }
        ),
        "started": now(),
        "finished": None,
        **decisive,
        "environment": environment(),
        "timings": {**dict.fromkeys(MEASURING, 0.0), "total_seconds": 0.0},
        "tokens": {"prompt": 0, "completion": 0},
        "rounding": None,
        "peak_memory_bytes": None,
        "counts": {},
        "metrics": [metric.name for metric in plan.metrics],
        "scores": [],
        "health": [],
    }


def _key(decisive: Mapping[str, object]) -> str:
    """Return the hash of everything that could change an output."""
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
