"""transformers' Trainer on planned steps, with complete checkpoints, for whatever weights are trained."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Adafactor,
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    TrainerState,
    TrainingArguments,
)

from lmtasks.compat.trainer import OpenTrainer, callback_states, use_one_gpu
from lmtasks.errors import LmtasksError
from lmtasks.progress import OnProgress
from lmtasks.training.common.checkpoints import STATE, atomic_checkpoint, checkpoint, remove_old
from lmtasks.training.common.contexts import environment_variables, report_oom
from lmtasks.training.common.distributed import world_size
from lmtasks.training.common.micro_batches import MicroBatches, TokenLosses
from lmtasks.training.common.monitor import TrainingMonitor, diverged
from lmtasks.training.common.packing import Batch
from lmtasks.training.common.settings import Optimizer, TrainerSettings
from lmtasks.training.common.trainer_state import damaged_checkpoint, seconds_spent

VALIDATIONS = 10
"""Number of validations of a training, at even distances of steps."""
DDP_TIMEOUT_SECONDS = 7 * 24 * 3600
"""How long the other processes wait for the first one, which may score a model meanwhile."""
SGD_MOMENTUM = 0.9
OPTIMIZERS: dict[Optimizer, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "adamw": (torch.optim.AdamW, {}),
    "adam": (torch.optim.Adam, {}),
    "rmsprop": (torch.optim.RMSprop, {}),
    # By default it computes a learning rate of its own and ignores the given one.
    "adafactor": (Adafactor, {"scale_parameter": False, "relative_step": False}),
    "sgd": (torch.optim.SGD, {"momentum": SGD_MOMENTUM}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """Data and settings of a training, and the functions that know which weights are trained."""

    name: str
    """Names the training in progress reports and trackers."""
    data: MicroBatches
    validation: Sequence[Batch]
    """Batches whose mean loss chooses the best checkpoint; empty: the last one is the best."""
    settings: TrainerSettings
    folder: Path
    """The folder of the checkpoints."""
    token_losses: TokenLosses
    save_weights: Callable[[torch.nn.Module, Path], None]
    """Writes the trained weights into the folder of a checkpoint, in a form that Trainer loads again."""
    check_weights: Callable[[torch.nn.Module, Path], None]
    """Raises a ValueError if a checkpoint does not hold all trained weights."""


class PlannedTrainer(OpenTrainer):
    """Trains on steps that are planned ahead, with every target token of a step weighted alike."""

    def __init__(self, job: TrainingJob, monitor: TrainingMonitor, **settings: Any) -> None:
        """Create a trainer.

        Args:
            job: the data and functions of the training.
            monitor: knows the time; becomes one of the callbacks.
            **settings: arguments of transformers' Trainer.
        """
        super().__init__(callbacks=[monitor, *settings.pop("callbacks", ())], **settings)
        self.job, self.monitor = job, monitor
        self.loss_is_scaled_for_ga = True  # by the weights of the micro-batches
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the part of the step's mean loss that a micro-batch contributes.

        Raises:
            TrainingError: it is NaN or infinite.
        """
        losses = self.job.token_losses(model, inputs)
        # Gradients are averaged over processes, and those of micro-batches have to be summed.
        loss = losses.sum() * inputs["weight"] * self.accelerator.num_processes
        if not torch.isfinite(loss):
            raise diverged("the loss", self.state.global_step + 1)
        return loss

    def _check_last_step(self) -> None:
        """Refuse weights that the last step spoiled: no later loss would show it.

        Raises:
            TrainingError: the loss of an example is NaN or infinite with them.
        """
        batch = self.to_device(self.job.data.probe)
        self.model.eval()  # dropout would draw random numbers, the more the more often a checkpoint is saved
        with torch.no_grad(), self.compute_loss_context_manager(), self.accelerator.autocast():
            losses = self.job.token_losses(self.model, batch)
        if not losses.isfinite().all():
            raise diverged("the loss", self.state.global_step + 1)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return the mean loss of the validation data, in nats per target token, as "eval_loss"."""
        self.model.eval()
        total, tokens = 0.0, 0
        with torch.no_grad(), self.compute_loss_context_manager(), self.accelerator.autocast():
            for batch in self.job.validation:
                losses = self.job.token_losses(self.model, self.to_device(batch))
                total += float(losses.double().sum())
                tokens += len(losses)
        if not math.isfinite(total):
            raise diverged("the validation loss", self.state.global_step + 1)
        metrics = {"eval_loss": total / tokens}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_checkpoint(self, model: torch.nn.Module) -> None:
        """Write weights, optimizer, schedule and random state into a temporary folder, and rename it.

        Trainer writes in place: a killed training would leave its newest checkpoint incomplete.
        """
        step, folder = self.state.global_step, self.job.folder
        main = self.is_world_process_zero()
        path = checkpoint(folder, step)
        wait = self.accelerator.wait_for_everyone
        wait()
        if path.exists():  # a resumed training saves the same step again
            return
        self._check_last_step()
        with atomic_checkpoint(path, main=main, wait=wait) as temporary:
            if main:
                self.job.save_weights(self.accelerator.unwrap_model(model), temporary)
            self.save_optimizer_and_schedule(temporary)
            self.save_rng_state(temporary)
            if main:
                states = callback_states([*self.callback_handler.callbacks, self.control])
                self.state.stateful_callbacks.update(states)
                self.state.log_history.append({"step": step, "seconds": self.monitor.spent})
                self.state.save_to_json(str(temporary / STATE))
        if main:
            remove_old(folder, {step, self.state.best_global_step or step})


def fit(
    model: torch.nn.Module,
    job: TrainingJob,
    before: TrainerState | None,
    *,
    dtype: torch.dtype,
    device: torch.device,
    on_progress: OnProgress,
) -> TrainerState:
    """Train a model, and return the state of the trainer at the end.

    Args:
        model: its weights that require gradients are trained.
        job: the data, settings and functions of the training.
        before: the state of the newest checkpoint, from which the training is resumed; None: from the first step.
        dtype: bfloat16 computes in autocast.
        device: the device of the model.
        on_progress: called with steps and losses.

    Raises:
        TrainingError: loss or weights are NaN or infinite, a step does not fit the memory, or a checkpoint cannot be
            written or read.
    """
    settings, steps = job.settings, len(job.data.steps)
    monitor = TrainingMonitor(
        f"training {job.name}",
        on_progress,
        validates=bool(job.validation),
        max_minutes=settings.max_minutes,
        spent=seconds_spent(before) if before else 0.0,
    )
    optimizer, optimizer_settings = OPTIMIZERS[settings.optimizer]
    with report_oom(), environment_variables(**_environment(settings, dtype)):
        trainer = PlannedTrainer(
            job,
            monitor,
            model=model,
            args=training_arguments(
                settings,
                job.folder,
                steps=steps,
                gradient_accumulation=job.data.per_step // world_size(),
                validates=bool(job.validation),
                resumed=before is not None,
                dtype=dtype,
                device=device,
            ),
            data_collator=_only_batch,
            train_dataset=job.data,
            eval_dataset=job.validation,
            optimizer_cls_and_kwargs=(optimizer, {"lr": settings.learning_rate, **optimizer_settings}),
            callbacks=[EarlyStoppingCallback(settings.early_stopping)] if settings.early_stopping else [],
        )
        newest = checkpoint(job.folder, before.global_step) if before else None
        try:
            if newest:
                job.check_weights(model, newest)
            trainer.train(resume_from_checkpoint=str(newest) if newest else None)
        except Exception as error:  # what a damaged checkpoint raises is of many families
            expected = isinstance(error, (LmtasksError, torch.OutOfMemoryError, MemoryError))
            if newest is None or monitor.stepped or expected:
                raise
            raise damaged_checkpoint(newest, error) from error
        state: TrainerState = trainer.state
        return state


def _environment(settings: TrainerSettings, dtype: torch.dtype) -> dict[str, str]:
    """Return environment variables that have no counterpart among Trainer's arguments."""
    # accelerate's launcher sets it, and it would win over the dtype that was chosen and is recorded.
    variables = {"ACCELERATE_MIXED_PRECISION": "bf16" if dtype == torch.bfloat16 else "no"}
    if settings.tracker_folder is not None and "tensorboard" in settings.report_to:
        # Trainer's own choice is a folder that is removed with the checkpoints.
        variables["TENSORBOARD_LOGGING_DIR"] = os.environ.get("TENSORBOARD_LOGGING_DIR", settings.tracker_folder)
    return variables


def _only_batch(batches: Sequence[Batch]) -> Batch:
    """Return the batch itself: micro-batches are collated already."""
    return batches[0]


def training_arguments(
    settings: TrainerSettings,
    folder: Path,
    *,
    steps: int,
    gradient_accumulation: int,
    validates: bool,
    resumed: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> TrainingArguments:
    """Return the arguments of transformers' Trainer.

    Args:
        settings: ours.
        folder: the folder for what Trainer and trackers write.
        steps: number of steps of the whole training.
        gradient_accumulation: micro-batches of a step in each process.
        validates: whether there is validation data.
        resumed: whether the training is resumed from a checkpoint.
        dtype: the dtype of the base model.
        device: the device of the base model.
    """
    checkpointing: dict[str, Any] = {}
    if settings.gradient_checkpointing:
        checkpointing = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,  # a micro-batch
        gradient_accumulation_steps=gradient_accumulation,
        **checkpointing,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        warmup_steps=settings.warmup_steps(steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        bf16=dtype == torch.bfloat16,
        use_cpu=device.type == "cpu",
        eval_strategy="steps" if validates else "no",
        eval_steps=max(1, steps // VALIDATIONS),
        eval_on_start=validates and not resumed,
        metric_for_best_model="loss" if validates else None,
        greater_is_better=False if validates else None,
        save_strategy="steps",
        save_steps=steps + 1,  # TrainingMonitor decides
        restore_callback_states_from_checkpoint=True,
        logging_steps=max(1, steps // 100),
        logging_nan_inf_filter=False,
        report_to=list(settings.report_to) or "none",
        run_name=folder.parent.name,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=device.type != "cpu",
        ddp_timeout=DDP_TIMEOUT_SECONDS,
        ddp_find_unused_parameters=False,
    )
    use_one_gpu(arguments)
    return arguments
