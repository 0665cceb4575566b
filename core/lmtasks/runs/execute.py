"""Running a task: render, generate, parse, keep each sample as it finishes, score, record."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from lmtasks.backends import Completion, LanguageModel, Request
from lmtasks.errors import LmtasksError, PluginError
from lmtasks.metrics.statistics import RESAMPLES, SEED
from lmtasks.models.adapter_files import Adapter
from lmtasks.paths import user_path
from lmtasks.progress import OnProgress
from lmtasks.prompts import RenderedPrompt
from lmtasks.records.run import ModelRunRecord
from lmtasks.runs.acquire import acquire_run_folder
from lmtasks.runs.adapters import adapter_record, attach_for_run
from lmtasks.runs.bound_task import KEY_DATE, date_to_resume, dated_key, make_renderer, stated_date
from lmtasks.runs.environment import peak_memory_bytes
from lmtasks.runs.folder import Run, samples_sha256, write_record
from lmtasks.runs.likelihood import measure_likelihoods, render_answers
from lmtasks.runs.plan import Plan, render_prompts, warn_of_language, with_stop_strings
from lmtasks.runs.resume import reuse_samples
from lmtasks.runs.run_json import (
    add_seconds,
    now,
    quantization_loss_record,
    run_key,
    run_record,
    run_settings,
    score_fields,
    total_fields,
)
from lmtasks.runs.sample_file import append_samples, read_samples, sync_samples
from lmtasks.runs.samples import new_sample, with_completion
from lmtasks.task import SamplingParams

OnEnd = Callable[[Run], None]
OnFailure = Callable[[LmtasksError], None]
log = logging.getLogger("lmtasks.runs")


@dataclass(slots=True, kw_only=True)
class _Job:
    """A run under way."""

    plan: Plan
    adapter: Adapter | None
    generation: SamplingParams
    prompts: Sequence[RenderedPrompt | None]
    answers: Mapping[str, Sequence[int]]
    record: ModelRunRecord
    path: Path = Path()
    reused: set[str] = field(default_factory=set)
    finished: int = 0
    """Examples that are done."""

    @property
    def adapter_id(self) -> str | None:
        """By which the model knows the adapter that answers."""
        return self.adapter.id if self.adapter else None

    def update(self, **fields: object) -> None:
        """Replace fields of the record."""
        self.record = self.record.model_copy(update=fields)


_Asked = tuple[_Job, int, RenderedPrompt]
"""A prompt that has no answer yet: its run, the index of its example, and the prompt."""


def run_plan(plan: Plan, model: LanguageModel, *, on_progress: OnProgress, on_end: OnEnd = lambda _: None) -> Run:
    """Run a task with a model, into a run folder; see `run_plans`."""
    return run_plans([plan], model, on_progress=on_progress, on_end=on_end)[0]


def run_plans(
    plans: Sequence[Plan],
    model: LanguageModel,
    *,
    on_progress: OnProgress,
    on_end: OnEnd = lambda _: None,
    on_failure: OnFailure | None = None,
) -> list[Run]:
    """Run tasks with a model and an adapter each, into a run folder each; their examples share batches.

    An unfinished run of the same plan in the same output folder is continued: its samples are not made again.

    Args:
        plans: what was checked before. Those of one seed and batch size share batches.
        model: answers the prompts.
        on_progress: hears how far it is.
        on_end: hears of each run that has ended, in whatever way, before run.json says so: what it writes into the
            folder is there once the run is "finished".
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
                names = (job.plan.task.name, source.name or source.resolve().name)
                claimed = acquire_run_folder(job.plan.options.output_dir, names, job.record.key)
                job.path, before = folders.enter_context(claimed)
                ending.append(job)
                if before:
                    timings = before.timings.model_copy(update={"total_seconds": 0.0})
                    job.update(quantization_loss=before.quantization_loss, timings=timings)
                write_record(job.path, job.record)
            for job in jobs:
                job.reused = reuse_samples(job.plan, job.prompts, job.path)
            _generate(jobs, model, on_progress)
            failed: list[LmtasksError] = []
            while ending:
                failed += _score(ending[0])
                _close(ending[0], started, on_end)
                del ending[0]
            for error in failed:
                if on_failure is None:
                    raise error
                on_failure(error)
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            for job in ending:
                job.update(
                    status="interrupted" if interrupted else "failed",
                    error=None if interrupted else f"{type(error).__name__}: {error}",
                )
                try:
                    _close(job, started, on_end)
                except LmtasksError as further:
                    if str(further) not in str(error):  # what went wrong first is what has to be told
                        log.warning("%s", further)
            raise
    return [Run(job.path) for job in jobs]


def _prepare(plan: Plan, model: LanguageModel, on_progress: OnProgress) -> _Job:
    """Render the prompts of a run, and say what will be recorded of it."""
    fewshot = plan.fewshot.examples if plan.fewshot else ()
    renderer = make_renderer(plan.task, model, plan.options, fewshot=fewshot, choice=plan.adapter)
    adapter = attach_for_run(plan.adapter, model, plan.task, renderer)
    generation = with_stop_strings(plan.generation, renderer, adapter)
    answers = render_answers(plan.task, plan.dataset.examples, renderer) if plan.options.loglikelihood else {}
    used = adapter_record(adapter, model)
    settings = run_settings(plan, renderer, model, generation, used)
    prompts = render_prompts(plan, renderer.on(KEY_DATE), model, generation, answers, on_progress)
    key = run_key(settings, plan.task, prompts)
    if renderer.template and renderer.template.day:
        # The prompts tell the date: a run that is resumed on another day keeps its own.
        if stated_date(plan.options, plan.adapter, model) is None:
            renderer = renderer.on(
                date_to_resume(user_path(plan.options.output_dir, "output folder"), key) or renderer.template.day
            )
        settings = run_settings(plan, renderer, model, generation, used)
        template = settings.prompt.chat_template
        key = dated_key(key, str(template and template.date))
        prompts = render_prompts(plan, renderer, model, generation, answers, on_progress)
    warn_of_language(plan, model, adapter)
    return _Job(
        plan=plan,
        adapter=adapter,
        generation=generation,
        prompts=prompts,
        answers=answers,
        record=run_record(settings, prompts, key, plan.metrics),
    )


def _score(job: _Job) -> list[LmtasksError]:
    """Score a run whose samples are all there; return what its task or metrics failed at, in one error."""
    samples = read_samples(job.path, count=len(job.prompts))
    fields, failures = score_fields(samples, job.plan.metrics, resamples=RESAMPLES, seed=SEED)
    job.update(**fields)
    if unread := [sample.error for sample in samples if sample.error]:
        rest = f", and {len(unread) - 1} more" if len(unread) > 1 else ""
        failures.insert(0, PluginError(f"{unread[0]}{rest}; they count as empty"))
    if not failures:
        job.update(status="finished")
        return []
    more = "".join(f"; {error}" for error in failures[1:])
    error = PluginError(f"{failures[0]}{more}. All texts are kept in {job.path}: run it again once that is mended")
    error.__cause__ = failures[0].__cause__
    job.update(status="failed", error=f"{type(error).__name__}: {error}")
    return [error]


def _close(job: _Job, started: float, on_end: OnEnd) -> None:
    """Complete the record of a run that has ended, tell of it, and write it last.

    A run that says "finished" therefore has everything; what a kill or a full disk stops before is done again from its
    samples, without the model.
    """
    path = job.path
    timings = job.record.timings.model_copy(update={"total_seconds": round(time.perf_counter() - started, 3)})
    job.update(finished=now(), timings=timings, peak_memory_bytes=peak_memory_bytes())
    if job.record.status != "finished":
        write_record(path, job.record)  # how it ended is kept, even if its samples cannot be read
    job.update(**total_fields(read_samples(path, count=len(job.prompts)), job.reused))
    sync_samples(path)
    if job.record.status == "finished":
        job.update(samples_sha256=samples_sha256(path))
    on_end(Run(path, job.record))
    write_record(path, job.record)


def _generate(jobs: Sequence[_Job], model: LanguageModel, on_progress: OnProgress) -> None:
    """Answer all prompts that are left, and keep each sample as it finishes."""
    todo: list[_Asked] = []
    for job in jobs:
        examples = job.plan.dataset.examples
        left = [index for index, example in enumerate(examples) if example.id not in job.reused]
        skipped = [index for index in left if job.prompts[index] is None]
        append_samples(job.path, [new_sample(job.plan.task, index, examples[index]) for index in skipped])
        own = [(job, index, prompt) for index in left if (prompt := job.prompts[index]) is not None]
        job.finished = len(examples) - len(own)
        todo += own
    what = f"running {', '.join(job.plan.task.name for job in jobs)}"
    total = sum(len(job.prompts) for job in jobs)
    on_progress(what, total - len(todo), total)
    for alike in _by_sampling(todo):
        for answered in _answers(alike, model):
            for job in jobs:
                if own_answers := [answer for answer in answered if answer[0] is job]:
                    _keep(job, [answer[1:] for answer in own_answers], model)
            on_progress(what, sum(job.finished for job in jobs), total)


def _by_sampling(todo: Sequence[_Asked]) -> list[list[_Asked]]:
    """Divide prompts into those of one seed and batch size."""
    groups: dict[tuple[int, int | None], list[_Asked]] = {}
    for asked in todo:
        options = asked[0].plan.options
        groups.setdefault((options.seed, options.batch_size), []).append(asked)
    return list(groups.values())


def _answers(
    todo: Sequence[_Asked], model: LanguageModel
) -> Iterator[list[tuple[_Job, int, RenderedPrompt, Completion]]]:
    """Answer prompts of one seed and batch size, and yield those that finished together, with their completions."""
    options = todo[0][0].plan.options
    requests = [
        Request(
            job.plan.dataset.examples[index].id,
            prompt.token_ids,
            job.generation,
            job.adapter_id,
            prompt.reasoning,
        )
        for job, index, prompt in todo
    ]
    begun = time.perf_counter()
    for together in model.generate(requests, seed=options.seed, batch_size=options.batch_size):
        seconds = (time.perf_counter() - begun) / len(together)
        for place, _ in together:
            _add_seconds(todo[place][0], "generate_seconds", seconds)
        if model.quantization_loss:
            for job, _, _ in todo:
                job.record["rounding"] = asdict(model.quantization_loss)
        yield [(*todo[place], completion) for place, completion in together]
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
    job.record = add_seconds(job.record, "loglikelihood_seconds", time.perf_counter() - begun)
    append_samples(
        job.path,
        [
            with_completion(task, new_sample(task, index, examples[index]), prompt, completion, likely)
            for (index, prompt, completion), likely in zip(answered, likelihoods, strict=True)
        ],
    )
    job.finished += len(answered)
    write_record(job.path, job.record, sync=False)  # a kill must not lose the time that these samples took
