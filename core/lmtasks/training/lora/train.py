"""From a prepared training to the weights of an adapter."""

from __future__ import annotations

import math
import os
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import TrainerState

from lmtasks.errors import LmtasksError, TrainingError, option
from lmtasks.models.adapter_files import CONFIG, WEIGHTS
from lmtasks.models.loading import LoadedModel
from lmtasks.models.quiet import quiet
from lmtasks.progress import OnProgress
from lmtasks.records.adapter import LossRecord, TrainingRecord
from lmtasks.training.common.checkpoints import STATE, check_checkpoint, checkpoint, checkpoints, remove_old
from lmtasks.training.common.distributed import processes, rank
from lmtasks.training.common.packing import Batch, collate
from lmtasks.training.common.trainer import (
    OPTIMIZERS,
    AdapterTrainer,
    MicroBatches,
    TrainingMonitor,
    early_stopping,
    has_ended,
    seconds_spent,
    training_arguments,
)
from lmtasks.training.lora.adapter import lora_attached, packed_attention_if, report_oom
from lmtasks.training.lora.plan import TrainingPlan
from lmtasks.training.lora.prepare import TrainingSetup


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came of a training."""

    checkpoint: Path
    """The best one, or the last where nothing was validated."""
    record: TrainingRecord
    """Steps, best step, losses, seconds, tokens: as in lmtasks.json."""


def train(
    plan: TrainingPlan, prepared: TrainingSetup, loaded: LoadedModel, folder: Path, on_progress: OnProgress
) -> Trained:
    """Train an adapter, from the newest checkpoint in a folder if there is one.

    Args:
        plan: what is learned.
        prepared: what `prepare` returned for it.
        loaded: the base model; it is as before when this returns.
        folder: for checkpoints.
        on_progress: hears of steps and losses.

    Raises:
        TrainingError: loss or weights are no longer numbers, or a checkpoint cannot be written or read.
    """
    newest = max(checkpoints(folder), default=None)
    if rank() == 0:
        remove_old(folder, set(checkpoints(folder)))
    before = _state(checkpoint(folder, newest), steps=len(prepared.steps)) if newest else None
    # It may have been interrupted between its last step and the adapter's folder.
    ended = before is not None and has_ended(before)
    state = before if before and ended else _run(plan, prepared, loaded, folder, before, on_progress)
    best = state.best_global_step or state.global_step
    steps = prepared.steps[: state.global_step]
    return Trained(
        checkpoint=checkpoint(folder, best),
        record=TrainingRecord(
            steps=state.global_step,
            planned_steps=len(prepared.steps),
            best_step=best,
            validation_loss=state.best_metric,
            examples=len(prepared.train.items),
            validation_examples=len(plan.validation),
            skipped=prepared.train.skipped,
            overlap_removed=plan.leaks,
            truncated=prepared.train.cut,
            epochs=sum(map(len, steps)) / len(prepared.train.items),
            tokens=sum(len(prepared.train.items[place].token_ids) for step in steps for place in step),
            trainable_weights=prepared.trainable,
            packed=prepared.packed,
            processes=processes(),
            micro_batches=prepared.parts,
            seconds=round(seconds_spent(state), 3),
            resumed_at=newest,
            history=_history(state),
        ),
    )


def _run(
    plan: TrainingPlan,
    prepared: TrainingSetup,
    loaded: LoadedModel,
    folder: Path,
    before: TrainerState | None,
    on_progress: OnProgress,
) -> TrainerState:
    """Train from a checkpoint's state (None: from the first step) to the end, and return what Trainer kept of it."""
    options = plan.options
    newest = before.global_step if before else None
    if "tensorboard" in options.report_to:
        # The only way to tell transformers; its own choice is a folder that goes with the checkpoints.
        logs = Path(options.output_dir) / "tensorboard" / folder.resolve().parent.name
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(logs))
    validation = _validation_batches(prepared, loaded.pad_id)
    watch = TrainingMonitor(
        f"training {plan.task.name}",
        on_progress,
        validates=bool(validation),
        max_minutes=options.max_minutes,
        spent=seconds_spent(before) if before else 0.0,
    )
    optimizer, settings = OPTIMIZERS[options.optimizer]
    with (
        report_oom(),
        quiet(),
        lora_attached(loaded, options) as model,
        packed_attention_if(loaded, packed=prepared.packed),
    ):
        trainer = AdapterTrainer(
            folder=folder,
            supports_logits_to_keep=prepared.supports_logits_to_keep,
            validation=validation,
            model=model,
            args=training_arguments(
                options,
                folder,
                steps=len(prepared.steps),
                accumulated=prepared.parts // processes(),
                validates=bool(validation),
                resumed=newest is not None,
                dtype=loaded.module.dtype,
                device=loaded.module.device.type,
            ),
            data_collator=_only,
            train_dataset=MicroBatches(
                prepared.train.items, prepared.steps, prepared.parts, packed=prepared.packed, pad_id=loaded.pad_id
            ),
            eval_dataset=validation,
            optimizer_cls_and_kwargs=(optimizer, {"lr": options.learning_rate, **settings}),
            watch=watch,
            callbacks=early_stopping(options),
        )
        try:
            if newest:
                _check_weights(model, checkpoint(folder, newest) / WEIGHTS)
            trainer.train(resume_from_checkpoint=str(checkpoint(folder, newest)) if newest else None)
        except Exception as error:  # what a damaged checkpoint raises is of many families
            ours = isinstance(error, (LmtasksError, torch.OutOfMemoryError, MemoryError))
            if newest is None or watch.stepped or ours:
                raise
            raise _damaged(checkpoint(folder, newest), error) from error
        return trainer.state


def _state(path: Path, *, steps: int) -> TrainerState:
    try:
        check_checkpoint(path, steps=steps, processes=processes())
        return TrainerState.load_from_json(str(path / STATE))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise _damaged(path, error) from error


def _check_weights(model: PeftModel, file: Path) -> None:
    """Refuse weights that are not all of the adapter's: peft would only warn, and keep those of a fresh adapter.

    Raises:
        ValueError: names a weight that is missing, unknown or of another shape.
    """
    expected = {
        name: list(weight.shape)
        for name, weight in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    with safe_open(file, framework="pt") as weights:
        shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118 - no mapping
    for name in sorted({*expected, *shapes}):
        if expected.get(name) != shapes.get(name):
            raise ValueError(
                f"{WEIGHTS}: {name} is expected in shape {expected.get(name)}, and is there in {shapes.get(name)}"
            )


def _damaged(path: Path, error: Exception) -> TrainingError:
    what = " ".join(str(error).split())[:200]
    return TrainingError(f"{path}: this checkpoint cannot be read ({what}); remove it to go on from the one before")


def _history(state: TrainerState) -> tuple[LossRecord, ...]:
    """Return the losses by step; what is no number has no place in JSON."""
    names = ("step", "loss", "eval_loss", "learning_rate", "grad_norm")
    losses = [entry for entry in state.log_history if "loss" in entry or "eval_loss" in entry]
    return tuple(
        LossRecord(**{name: value for name in names if _is_number(value := entry.get(name))}) for entry in losses
    )


def _is_number(value: object) -> bool:
    return isinstance(value, float | int) and math.isfinite(value)


def _only(batches: Sequence[Batch]) -> Batch:
    """Return the batch itself: Parts are collated already."""
    return batches[0]


def _validation_batches(prepared: TrainingSetup, pad_id: int) -> list[Batch]:
    """Return the validation data in batches of about the size of a part."""
    if prepared.validation is None:
        return []
    items = prepared.validation.items
    size = max(1, math.ceil(statistics.mean(map(len, prepared.steps)) / prepared.parts))
    return [
        collate(items[start : start + size], packed=prepared.packed, pad_id=pad_id, weight=0.0)
        for start in range(0, len(items), size)
    ]


def place_adapter(trained: Trained, folder: Path) -> None:
    """Copy the adapter of a checkpoint into its folder, whole or not at all.

    Raises:
        TrainingError: the folder cannot be written.
    """
    try:
        for name in (WEIGHTS, CONFIG):
            aside = folder / f".{name}.part"
            shutil.copyfile(trained.checkpoint / name, aside)
            os.replace(aside, folder / name)
    except OSError as error:
        raise TrainingError(
            f"{folder}: the adapter cannot be written ({error}); continue with {option('resume', True)}"
        ) from error
