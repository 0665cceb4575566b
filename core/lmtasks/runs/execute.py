"""The run loop: render, generate, parse, write each sample as it finishes, score, record."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from lmtasks.backends import Completion, LanguageModel
from lmtasks.errors import LmtasksError, PluginError
from lmtasks.metrics.statistics import SEED
from lmtasks.options.score import RESAMPLES
from lmtasks.paths import user_path
from lmtasks.progress import OnProgress
from lmtasks.prompts import RenderedPrompt
from lmtasks.records.run import ModelRunRecord
from lmtasks.runs.acquire import acquire_run_folder
from lmtasks.runs.adapters import adapter_record
from lmtasks.runs.bound_task import KEY_DATE, BoundTask, bind_task, date_to_resume, dated_key, stated_date
from lmtasks.runs.environment import peak_memory_bytes
from lmtasks.runs.folder import Run, samples_sha256, write_record
from lmtasks.runs.likelihood import check_logprobs, measure_likelihoods, render_answers
from lmtasks.runs.plan import Plan, warn_of_unsupported_languages
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
from lmtasks.runs.samples import new_sample, with_completion, with_predictions

OnEnd = Callable[[Run], None]
OnFailure = Callable[[LmtasksError], None]
log = logging.getLogger("lmtasks.runs")


@dataclass(slots=True, kw_only=True)
class _Job:
    """One run of several that share a model: what it asks, and how far it is."""

    plan: Plan
    bound: BoundTask
    prompts: Sequence[RenderedPrompt | None]
    """The prompt of each example; None: the example is skipped."""
    answers: Mapping[str, Sequence[int]]
    """Token ids by text of the references whose likelihood is measured; empty: none is."""
    record: ModelRunRecord
    path: Path = Path()
    reused: set[str] = field(default_factory=set)
    """Ids of the examples that an interrupted run has finished."""
    finished: int = 0
    """How many examples are finished."""

    @property
    def adapter_id(self) -> str | None:
        """The id by which the model knows the adapter that answers."""
        return self.bound.adapter.id if self.bound.adapter else None

    def update(self, **fields: object) -> None:
        """Replace fields of the record."""
        self.record = self.record.model_copy(update=fields)

    def add_seconds(self, name: str, seconds: float) -> None:
        """Add to one of the record's timings."""
        self.record = add_seconds(self.record, name, seconds)


@dataclass(frozen=True, slots=True)
class _PendingPrompt:
    """A prompt without a completion, with the run and the index of its example."""

    job: _Job
    index: int
    prompt: RenderedPrompt


def run_plans(
    plans: Sequence[Plan],
    model: LanguageModel,
    *,
    on_progress: OnProgress,
    on_end: OnEnd = lambda _: None,
    on_failure: OnFailure | None = None,
) -> list[Run]:
    """Run tasks with a model, each with its adapter and run folder; their examples share batches.

    An unfinished run of the same plan in the same output folder is resumed: its samples are kept.

    Args:
        plans: the runs, as `plan_run` has checked them. Those with the same seed and batch size share batches.
        model: the model that answers.
        on_progress: called while prompts are rendered and completions generated.
        on_end: called with each run that has ended, in whatever way, before run.json says so: what it writes into the
            folder is there once the run is "finished".
        on_failure: called with the error of each run whose parser or metric failed, which costs that run examples or
            scores and does not affect the others; None: the first error is raised after all runs have ended.

    Raises:
        AdapterError: an adapter does not fit the model, or the backend cannot use adapters.
        ModelError: log-likelihoods are wanted, and the backend computes none.
        PromptError: prompts do not fit the model and may not be truncated or skipped; nothing was generated.
        PluginError: a task's parser or a metric failed; the samples made so far are kept.
        RunError: a run folder cannot be written.
    """
    started = time.perf_counter()
    jobs = [_prepare(plan, model, on_progress) for plan in plans]
    adapters = [job.bound.adapter for job in jobs if job.bound.adapter]
    alone = [adapter.source for adapter in adapters if not adapter.shares_batches]
    if alone and len(jobs) > 1:
        log.warning("an adapter with DoRA cannot share batches with others: %s runs alone", ", ".join(alone))
    source = Path(model.info.name)
    with ExitStack() as folders:
        unfinished: list[_Job] = []
        try:
            for job in jobs:
                names = (job.plan.task.name, source.name or source.resolve().name)
                acquired = acquire_run_folder(job.plan.options.output_dir, names, job.record.key)
                job.path, before = folders.enter_context(acquired)
                unfinished.append(job)
                if before:
                    timings = before.timings.model_copy(update={"total_seconds": 0.0})
                    job.update(quantization_loss=before.quantization_loss, timings=timings)
                write_record(job.path, job.record)
            for job in jobs:
                job.reused = reuse_samples(job.plan, job.prompts, job.path)
            _generate(jobs, model, on_progress)
            failed: list[LmtasksError] = []
            while unfinished:
                failed += _score(unfinished[0])
                _finish_record(unfinished[0], started, on_end)
                del unfinished[0]
            for error in failed:
                if on_failure is None:
                    raise error
                on_failure(error)
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            for job in unfinished:
                job.update(
                    status="interrupted" if interrupted else "failed",
                    error=None if interrupted else f"{type(error).__name__}: {error}",
                )
                try:
                    _finish_record(job, started, on_end)
                except LmtasksError as second_error:
                    if str(second_error) not in str(error):  # the first error is the one to report
                        log.warning("%s", second_error)
            raise
    return [Run(job.path) for job in jobs]


def _prepare(plan: Plan, model: LanguageModel, on_progress: OnProgress) -> _Job:
    """Bind a plan to a model, render its prompts and begin its record."""
    if plan.options.loglikelihood:
        check_logprobs(model)
    bound, examples = bind_task(plan, model), plan.dataset.examples
    answers = render_answers(plan.task, examples, bound.renderer) if plan.options.loglikelihood else {}
    used = adapter_record(bound.adapter, model)
    settings = run_settings(plan, bound.renderer, model, bound.generation, used)
    prompts = bound.with_date(KEY_DATE).render_all(examples, answers=answers, on_progress=on_progress)
    key = run_key(settings, plan.task, prompts)
    template = bound.renderer.template
    if template and template.day:
        # The prompts contain the date: a run that is resumed on another day keeps its own.
        if stated_date(plan.options, plan.adapter, model) is None:
            output_dir = user_path(plan.options.output_dir, "output folder")
            bound = bound.with_date(date_to_resume(output_dir, key) or template.day)
        settings = run_settings(plan, bound.renderer, model, bound.generation, used)
        chat_template = settings.prompt.chat_template
        key = dated_key(key, str(chat_template and chat_template.date))
        prompts = bound.render_all(examples, answers=answers, on_progress=on_progress)
    warn_of_unsupported_languages(plan, model, bound.adapter)
    return _Job(
        plan=plan,
        bound=bound,
        prompts=prompts,
        answers=answers,
        record=run_record(settings, prompts, key, plan.metrics),
    )


def _score(job: _Job) -> list[LmtasksError]:
    """Score a run whose samples are complete; return the failures of its parser and metrics, as one error."""
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
    error = PluginError(f"{failures[0]}{more}. All texts are kept in {job.path}: run it again once that is fixed")
    error.__cause__ = failures[0].__cause__
    job.update(status="failed", error=f"{type(error).__name__}: {error}")
    return [error]


def _finish_record(job: _Job, started: float, on_end: OnEnd) -> None:
    """Complete the record of a run that has ended, call `on_end`, and write the record last.

    A run that says "finished" is therefore complete. If a kill or a full disk stops this, it is done again from the
    samples, without the model.
    """
    path = job.path
    timings = job.record.timings.model_copy(update={"total_seconds": round(time.perf_counter() - started, 3)})
    job.update(finished=now(), timings=timings, peak_memory_bytes=peak_memory_bytes())
    if job.record.status != "finished":
        write_record(path, job.record)  # its status is kept even if its samples cannot be read
    job.update(**total_fields(read_samples(path, count=len(job.prompts)), job.reused))
    sync_samples(path)
    if job.record.status == "finished":
        job.update(samples_sha256=samples_sha256(path))
    on_end(Run(path, job.record))
    write_record(path, job.record)


def _generate(jobs: Sequence[_Job], model: LanguageModel, on_progress: OnProgress) -> None:
    """Generate the completions that are missing, and write each sample as it finishes."""
    pending: list[_PendingPrompt] = []
    for job in jobs:
        examples = job.plan.dataset.examples
        indices = [index for index, example in enumerate(examples) if example.id not in job.reused]
        skipped = [index for index in indices if job.prompts[index] is None]
        append_samples(job.path, [new_sample(job.plan.task, index, examples[index]) for index in skipped])
        prompts = [
            _PendingPrompt(job, index, prompt) for index in indices if (prompt := job.prompts[index]) is not None
        ]
        job.finished = len(examples) - len(prompts)
        pending += prompts
    title = f"running {', '.join(job.plan.task.name for job in jobs)}"
    total = sum(len(job.prompts) for job in jobs)
    on_progress(title, total - len(pending), total)
    for group in _group_by_sampling(pending):
        for completed in _complete(group, model):
            for job in jobs:
                if of_job := [(prompt, completion) for prompt, completion in completed if prompt.job is job]:
                    _write_samples(job, of_job, model)
            on_progress(title, sum(job.finished for job in jobs), total)


def _group_by_sampling(pending: Sequence[_PendingPrompt]) -> list[list[_PendingPrompt]]:
    """Group prompts by seed and batch size: those of a group share batches."""
    groups: dict[tuple[int, int | None], list[_PendingPrompt]] = {}
    for prompt in pending:
        options = prompt.job.plan.options
        groups.setdefault((options.seed, options.batch_size), []).append(prompt)
    return list(groups.values())


def _complete(
    pending: Sequence[_PendingPrompt], model: LanguageModel
) -> Iterator[list[tuple[_PendingPrompt, Completion]]]:
    """Generate completions of prompts with one seed and batch size, and yield those that finished together."""
    options = pending[0].job.plan.options
    requests = [
        prompt.job.bound.request(prompt.job.plan.dataset.examples[prompt.index], prompt.prompt) for prompt in pending
    ]
    started = time.perf_counter()
    for finished in model.generate(requests, seed=options.seed, batch_size=options.batch_size):
        seconds = (time.perf_counter() - started) / len(finished)
        for index, _ in finished:
            pending[index].job.add_seconds("generate_seconds", seconds)
        if loss := quantization_loss_record(model):
            for job in {id(prompt.job): prompt.job for prompt in pending}.values():
                job.update(quantization_loss=loss)
        yield [(pending[index], completion) for index, completion in finished]
        started = time.perf_counter()


def _write_samples(job: _Job, completed: Sequence[tuple[_PendingPrompt, Completion]], model: LanguageModel) -> None:
    """Measure the likelihood of references if the run asks for it, parse the completions, and write the samples."""
    task, examples = job.plan.task, job.plan.dataset.examples
    started = time.perf_counter()
    likelihoods = measure_likelihoods(
        task,
        [(examples[pending.index], pending.prompt) for pending, _ in completed],
        model,
        job.answers,
        adapter=job.adapter_id,
        batch_size=job.plan.options.batch_size,
    )
    job.add_seconds("loglikelihood_seconds", time.perf_counter() - started)
    samples = [
        with_completion(
            new_sample(task, pending.index, examples[pending.index]), pending.prompt, completion, likelihood
        )
        for (pending, completion), likelihood in zip(completed, likelihoods, strict=True)
    ]
    append_samples(job.path, with_predictions(task, samples))
    job.finished += len(completed)
    write_record(job.path, job.record, sync=False)  # a kill must not lose the time that these samples took
