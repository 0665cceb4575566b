"""Fine-tuning: a task and data become an adapter, scored before and after."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from lmtasks.errors import RunError, UsageError, option, unknown_name
from lmtasks.files import sha256_file
from lmtasks.metrics.statistics import SEED, TRIALS
from lmtasks.models import DEFAULT
from lmtasks.options import TrainKeywords, TrainOptions, with_changes
from lmtasks.options.score import RESAMPLES
from lmtasks.paths import user_path
from lmtasks.plugins import Registry, find_task
from lmtasks.progress import OnProgress, no_progress
from lmtasks.prompts import Renderer
from lmtasks.records.adapter import (
    AdapterRecord,
    BaseRecord,
    SettingsRecord,
    TrainedPromptRecord,
    TrainingRecord,
)
from lmtasks.reports import CURVE, write_card, write_report
from lmtasks.runs.bound_task import make_renderer
from lmtasks.runs.compare import compared_score_record
from lmtasks.runs.environment import environment, package_versions
from lmtasks.runs.folder import Run
from lmtasks.runs.folder import write_record as write_run_record
from lmtasks.runs.plan import plan_run
from lmtasks.runs.run_json import chat_template_record, data_record, now, task_record
from lmtasks.task import Task
from lmtasks.training.common.distributed import rank, world_size
from lmtasks.training.lora.plan import TrainingPlan, plan_training
from lmtasks.training.lora.resume_state import (
    FOLDER,
    ResumeState,
    check_target,
    is_trained,
    open_state,
    planned_date,
    planned_steps,
)

if TYPE_CHECKING:
    from lmtasks.models.loading import LoadedModel
    from lmtasks.runs.compare import Comparison
    from lmtasks.runs.plan import Plan
    from lmtasks.training.lora.prepare import TrainingSetup

log = logging.getLogger("lmtasks")
NOT_DECISIVE = ("output_dir", "report_to", "gradient_checkpointing")
"""Settings that change no weight and no score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedAdapter:
    """The result of a training."""

    path: Path
    """The adapter's folder."""
    record: AdapterRecord
    """The content of its lmtasks.json."""
    before: Run
    after: Run
    comparison: Comparison | None
    """None where the evaluation data has no references."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingEstimate:
    """A training before its first step: data, steps, and the time and memory that they will take."""

    task: str
    model: str
    dtype: str
    device: str
    data: str
    examples: int
    validation_examples: int
    evaluation: str
    evaluation_split: str | None
    evaluation_examples: int
    tokens: int
    """Tokens of an epoch, prompts and answers."""
    answer_tokens: int
    """Tokens of an epoch that the loss is computed on."""
    truncated: int
    skipped: int
    overlap_removed: int
    max_length: int
    packed: bool
    steps: int
    epochs: float
    step_tokens: int
    """Tokens of all steps together."""
    trainable_weights: int
    weights: int
    """Weights of the base model."""
    expected_seconds: float
    expected_memory_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTraining:
    """A training that is ready to begin."""

    plan: TrainingPlan
    scoring: Plan
    loaded: LoadedModel
    renderer: Renderer
    setup: TrainingSetup

    @property
    def estimate(self) -> TrainingEstimate:
        """Data, steps, time and memory of the training."""
        setup, plan = self.setup, self.plan
        train = setup.train
        return TrainingEstimate(
            task=plan.task.name,
            model=self.loaded.info.name,
            dtype=self.loaded.info.dtype,
            device=self.loaded.info.device,
            data=plan.data.name,
            examples=len(train.examples),
            validation_examples=len(plan.validation),
            evaluation=plan.evaluation.name,
            evaluation_split=plan.evaluation.split,
            evaluation_examples=len(plan.evaluation.examples),
            tokens=train.tokens,
            answer_tokens=train.target_tokens,
            truncated=train.truncated,
            skipped=train.skipped,
            overlap_removed=plan.overlap_removed,
            max_length=setup.max_length,
            packed=setup.packed,
            steps=len(setup.steps),
            epochs=setup.epochs,
            step_tokens=setup.step_tokens,
            trainable_weights=setup.trainable_weights,
            weights=self.loaded.info.parameters,
            expected_seconds=setup.seconds,
            expected_memory_bytes=setup.memory_bytes,
        )


def plan_train(
    task: str | Task,
    options: TrainOptions | None = None,
    *,
    model: str | Path = DEFAULT,
    resumed: Path | None = None,
    on_progress: OnProgress = no_progress,
    **changes: Unpack[TrainKeywords],
) -> PlannedTraining:
    """Check the data of a training, render it, and measure a step.

    Args:
        task: as for `train`.
        options: settings.
        model: the name of the base model.
        resumed: the folder of the unfinished training that is resumed, which keeps its number of steps and its date.
        on_progress: called with the progress.
        **changes: fields of TrainOptions that replace those of `options`.

    Raises:
        LmtasksError: as for `train`.
    """
    from lmtasks.models.loading import load
    from lmtasks.training.lora.prepare import prepare

    options = with_changes(options or TrainOptions(), changes, "option of a training")
    if resumed and options.chat_template_date is None:
        options = replace(options, chat_template_date=planned_date(resumed))
    if options.max_minutes is not None and world_size() > 1:
        raise UsageError(
            f"{option('max_minutes')} is for one process, which alone knows its speed; give {option('max_steps')}"
        )
    registry = Registry()
    chosen, plugin = find_task(registry, task, options.parameters)
    if options.prompt is not None and options.prompt not in chosen.prompts:
        raise unknown_name(f'prompt of task "{chosen.name}"', options.prompt, chosen.prompts)
    plan = plan_training(chosen, plugin.discovered if plugin else None, options)
    scoring = plan_run(
        task,
        options.run_options(plan.evaluation.name, plan.evaluation.split),
        registry=registry,
        dataset=plan.evaluation,
    )
    loaded = load(
        str(model),
        device=options.device,
        dtype=options.dtype,
        trust_remote_code=options.trust_remote_code,
        on_progress=on_progress,
    )
    if loaded.module.dtype.itemsize == 2 and loaded.info.dtype == "float16":
        raise UsageError(f"{option('dtype')} float16 overflows in training; use bfloat16 or float32")
    renderer = make_renderer(chosen, loaded, options)
    if renderer.template and renderer.template.day:
        day = renderer.template.day.isoformat()
        plan = replace(plan, options=replace(options, chat_template_date=day))
        scoring = replace(scoring, options=replace(scoring.options, chat_template_date=day))
    steps = planned_steps(resumed) if resumed else None
    setup = prepare(plan, loaded, renderer, on_progress, timed_steps=steps)
    return PlannedTraining(plan=plan, scoring=scoring, loaded=loaded, renderer=renderer, setup=setup)


def train(
    task: str | Task,
    output: str | Path,
    options: TrainOptions | None = None,
    *,
    model: str | Path = DEFAULT,
    resume: bool = False,
    on_progress: OnProgress = no_progress,
    on_plan: Callable[[TrainingEstimate], None] = lambda _: None,
    **changes: Unpack[TrainKeywords],
) -> TrainedAdapter | None:
    """Fine-tune an adapter for a task, and score the model without and with it on the same examples.

    >>> train("summarization/dialogue", "adapter", data="train.jsonl", eval_data="test.jsonl")  # doctest: +SKIP

    Args:
        task: a task, or its name.
        output: the folder of the adapter; it is created.
        options: the settings; TrainOptions documents its fields.
        model: the name of the base model.
        resume: resume the unfinished training in `output`, which was begun with the same settings.
        on_progress: called with the progress.
        on_plan: called with the estimate before the training begins.
        **changes: fields of TrainOptions that replace those of `options`.

    Returns:
        The adapter with its runs; None in all processes but the first, where several train together.

    Raises:
        DataError: data cannot be read, has no answers, or holds examples of the evaluation data.
        TrainingError: the folder is in use, the training diverged, or the disk is full.
        LmtasksError: its other children name what was wrong with task, model or settings.
    """
    output = user_path(output, "adapter folder")
    if rank() == 0:
        check_target(output, resume=resume)
    # Before it takes time: the first process may be done, and gone, when this one has measured a step.
    trained = is_trained(output)
    planned = plan_train(
        task,
        options,
        model=model,
        resumed=output if resume else None,
        on_progress=on_progress if rank() == 0 else no_progress,
        **changes,
    )
    if rank() != 0:
        # The first process scores and writes; this one computes its part of every step.
        if not trained:
            from lmtasks.training.lora.train import train_weights

            train_weights(planned.plan, planned.setup, planned.loaded, output / FOLDER, no_progress)
        return None
    on_plan(planned.estimate)
    with open_state(output, _decisive(planned), steps=len(planned.setup.steps)) as work:
        return _train_and_score(planned, work, on_progress)


def _train_and_score(planned: PlannedTraining, work: ResumeState, on_progress: OnProgress) -> TrainedAdapter:
    from lmtasks.models.adapter_files import WEIGHTS, find_adapter, write_record
    from lmtasks.runs.adapters import AdapterChoice
    from lmtasks.training.lora.train import copy_weights, train_weights

    before = _finished_run(work.state.before, "before")
    if before is None:
        before = _run(planned.scoring, planned.loaded, on_progress)
        work.update(before=str(before.path.resolve()))
    record = work.state.trained
    if record is None:
        trained = train_weights(planned.plan, planned.setup, planned.loaded, work.folder, on_progress)
        copy_weights(trained, work.adapter)
        record = _record(planned, trained.record, sha256_file(work.adapter / WEIGHTS))
        write_record(work.adapter, record)
        work.update(trained=record)
    adapter = find_adapter(work.adapter)
    after = _finished_run(work.state.after, "after")
    if after is None:
        scoring = replace(planned.scoring, adapter=AdapterChoice(adapter, bundled=False))
        after = _run(scoring, planned.loaded, on_progress)
        work.update(after=str(after.path.resolve()))
    comparison = _compare(before, after, planned.scoring)
    record = record.model_copy(update={**_scores(comparison), "before": before.path.name, "after": after.path.name})
    # The unfinished training goes last: until then all of this can be done again, without the model.
    after = Run(after.path, after.record.model_copy(update={"training": record}))
    write_report(after)
    write_run_record(after.path, after.record)
    work.copy_in(after.path / CURVE)
    write_card(work.adapter, record)
    write_record(work.adapter, record)
    work.remove()
    return TrainedAdapter(path=work.adapter, record=record, before=before, after=after, comparison=comparison)


def _run(plan: Plan, loaded: LoadedModel, on_progress: OnProgress) -> Run:
    """Run a plan with the model that is trained, and write its report."""
    from lmtasks.backends.huggingface import TransformersModel
    from lmtasks.runs.execute import run_plans

    [run] = run_plans([plan], TransformersModel(loaded), on_progress=on_progress, on_end=write_report)
    return run


def _finished_run(path: str | None, which: str) -> Run | None:
    """Return the run that scored the base or the adapter before an interruption, if it is still there and complete."""
    if path is None:
        return None
    try:
        run = Run(Path(path))
        run.samples  # noqa: B018 # reading checks them
    except RunError as error:
        log.warning("the run %s the training is scored again: %s", which, error)
        return None
    return run if run.status == "finished" else None


def _compare(before: Run, after: Run, plan: Plan) -> Comparison | None:
    from lmtasks.runs.compare import compare_runs

    if not any(example.references for example in plan.dataset.examples):
        return None
    [comparison] = compare_runs(
        [before, after], plan.metrics, ignore_recorded_signatures=False, resamples=RESAMPLES, trials=TRIALS, seed=SEED
    )
    return comparison


def _scores(comparison: Comparison | None) -> dict[str, Any]:
    if comparison is None:
        verdict = "Nothing to compare: the evaluation data has no references."
        return {"scores": (), "output_checks": (), "verdict": verdict}
    return {
        "scores": tuple(compared_score_record(score) for score in comparison.scores),
        "output_checks": tuple(compared_score_record(score) for score in comparison.output_checks),
        "verdict": comparison.verdict_of("the base", "the adapter"),
    }


def _settings(planned: PlannedTraining) -> dict[str, Any]:
    options = planned.plan.options
    settings = {name: value for name, value in asdict(options).items() if name != "output_dir"}
    settings |= {name: str(settings[name]) for name in ("data", "eval_data") if settings[name] is not None}
    return {**settings, "alpha": options.scale, "max_length": planned.setup.max_length}


def _decisive(planned: PlannedTraining) -> dict[str, Any]:
    """Return everything that the adapter's weights and scores depend on."""
    plan, info = planned.plan, planned.loaded.info
    settings = _settings(planned)
    return {
        "task": task_record(plan.task, plan.plugin).to_json(),
        "prompt": {"name": planned.renderer.name, "sha256": planned.renderer.fingerprint()},
        "base": info.revision,
        "dtype": info.dtype,
        "data": plan.data.sha256,
        "evaluation": plan.evaluation.sha256,
        "settings": {name: value for name, value in settings.items() if name not in NOT_DECISIVE},
        "packages": package_versions(),
    }


def _record(planned: PlannedTraining, training: TrainingRecord, weights_sha256: str) -> AdapterRecord:
    """Return lmtasks.json as it stands before the adapter was scored."""
    plan, options, info = planned.plan, planned.plan.options, planned.loaded.info
    scoring = planned.scoring.options
    return AdapterRecord(
        made=now(),
        weights_sha256=weights_sha256,
        task=task_record(plan.task, plan.plugin),
        prompt=TrainedPromptRecord(
            name=planned.renderer.name,
            form="chat" if planned.renderer.chat else "plain",
            sha256=planned.renderer.fingerprint(),
            chat_template=chat_template_record(planned.renderer),
        ),
        base=BaseRecord(**{name: getattr(info, name) for name in BaseRecord.model_fields}),
        data=data_record(plan.data, limit=options.limit, columns=options.columns, language=options.language),
        evaluation=data_record(
            plan.evaluation, limit=scoring.limit, columns=scoring.columns, language=scoring.language
        ),
        settings=SettingsRecord(**_settings(planned)),
        training=training,
        environment=environment(),
        scores=(),
        output_checks=(),
        verdict="",
    )
