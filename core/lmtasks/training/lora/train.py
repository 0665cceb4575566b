"""The weights of an adapter, trained from a prepared setup and copied into the adapter's folder."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from transformers import TrainerState

from lmtasks.errors import TrainingError, option
from lmtasks.files import atomic_copy
from lmtasks.kernels.packed_attention import packed_attention
from lmtasks.models.adapter_files import CONFIG, WEIGHTS
from lmtasks.models.loading import LoadedModel
from lmtasks.models.quiet import quiet
from lmtasks.options import TrainOptions
from lmtasks.progress import OnProgress
from lmtasks.records.adapter import LossRecord, TrainingRecord
from lmtasks.training.common.checkpoints import checkpoint, checkpoints, remove_old
from lmtasks.training.common.distributed import rank, world_size
from lmtasks.training.common.micro_batches import validation_batches
from lmtasks.training.common.settings import TrainerSettings
from lmtasks.training.common.trainer import TrainingJob, fit
from lmtasks.training.common.trainer_state import has_ended, loss_history, newest_state, seconds_spent
from lmtasks.training.lora.adapter import check_adapter_weights, lora_attached, save_adapter
from lmtasks.training.lora.plan import TrainingPlan
from lmtasks.training.lora.prepare import TrainingSetup


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedWeights:
    """The result of a training."""

    checkpoint: Path
    """The best checkpoint, or the last one where nothing was validated."""
    record: TrainingRecord
    """Steps, best step, losses, seconds, tokens: "training" in lmtasks.json."""


def train_weights(
    plan: TrainingPlan, setup: TrainingSetup, loaded: LoadedModel, folder: Path, on_progress: OnProgress
) -> TrainedWeights:
    """Train an adapter, from the newest checkpoint in a folder if it has one.

    Args:
        plan: the examples and options of the training.
        setup: what `prepare` returned for the plan.
        loaded: the base model; it is as before when this returns.
        folder: the folder of the checkpoints.
        on_progress: called with steps and losses.

    Raises:
        TrainingError: loss or weights are NaN or infinite, or a checkpoint cannot be written or read.
    """
    if rank() == 0:
        remove_old(folder, set(checkpoints(folder)))
    before = newest_state(folder, steps=len(setup.steps), weight_files=(WEIGHTS, CONFIG))
    # It may have been interrupted after its last step, before the weights were copied into the adapter's folder.
    state = before if before and has_ended(before) else _fit(plan, setup, loaded, folder, before, on_progress)
    best = state.best_global_step or state.global_step
    steps = setup.steps[: state.global_step]
    lengths = setup.train.lengths
    return TrainedWeights(
        checkpoint=checkpoint(folder, best),
        record=TrainingRecord(
            steps=state.global_step,
            planned_steps=len(setup.steps),
            best_step=best,
            validation_loss=state.best_metric,
            examples=len(setup.train.examples),
            validation_examples=len(plan.validation),
            skipped=setup.train.skipped,
            overlap_removed=plan.overlap_removed,
            truncated=setup.train.truncated,
            epochs=sum(map(len, steps)) / len(setup.train.examples),
            tokens=sum(lengths[index] for step in steps for index in step),
            trainable_weights=setup.trainable_weights,
            packed=setup.packed,
            processes=world_size(),
            micro_batches=setup.data.per_step,
            seconds=round(seconds_spent(state), 3),
            resumed_at=before.global_step if before else None,
            history=tuple(LossRecord.model_validate(entry) for entry in loss_history(state)),
        ),
    )


def _fit(
    plan: TrainingPlan,
    setup: TrainingSetup,
    loaded: LoadedModel,
    folder: Path,
    before: TrainerState | None,
    on_progress: OnProgress,
) -> TrainerState:
    """Train from a checkpoint's state (None: from the first step) to the end, and return the state of the trainer."""
    job = TrainingJob(
        name=plan.task.name,
        data=setup.data,
        validation=validation_batches(setup.validation.examples, setup.data) if setup.validation else [],
        settings=trainer_settings(plan.options, folder),
        folder=folder,
        token_losses=setup.token_losses,
        save_weights=save_adapter,
        check_weights=check_adapter_weights,
    )
    module = loaded.module
    with (
        quiet(),
        lora_attached(loaded, plan.options) as model,
        packed_attention(module) if setup.packed else nullcontext(),
    ):
        return fit(model, job, before, dtype=module.dtype, device=module.device, on_progress=on_progress)


def trainer_settings(options: TrainOptions, folder: Path) -> TrainerSettings:
    """Return the settings that a training has in common with any other.

    Args:
        options: the options of the training.
        folder: the folder of the checkpoints, in the adapter's folder.
    """
    return TrainerSettings(
        optimizer=options.optimizer,
        learning_rate=options.learning_rate,
        schedule=options.schedule,
        warmup=options.warmup,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        gradient_checkpointing=options.gradient_checkpointing,
        max_minutes=options.max_minutes,
        early_stopping=options.early_stopping,
        seed=options.seed,
        report_to=options.report_to,
        tracker_folder=str(Path(options.output_dir) / "tensorboard" / folder.resolve().parent.name),
    )


def copy_weights(trained: TrainedWeights, folder: Path) -> None:
    """Copy the adapter of a checkpoint into its folder, each file atomically.

    Raises:
        TrainingError: the folder cannot be written.
    """
    try:
        for name in (WEIGHTS, CONFIG):
            atomic_copy(trained.checkpoint / name, folder / name)
    except OSError as error:
        raise TrainingError(
            f"{folder}: the adapter cannot be written ({error}); resume the training with {option('resume', True)}"
        ) from error
