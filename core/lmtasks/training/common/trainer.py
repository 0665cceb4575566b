"""transformers' Trainer, with steps that are planned ahead, a loss on answers alone, and checkpoints that are whole."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, SequentialSampler
from transformers import (
    Adafactor,
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import ExportableState

from lmtasks.errors import TrainingError, option
from lmtasks.options import Optimizer, TrainOptions
from lmtasks.progress import OnProgress
from lmtasks.training.common.checkpoints import STATE, checkpoint, remove_old, writing_aside
from lmtasks.training.common.dataset import TrainingExample
from lmtasks.training.common.packing import Batch, answer_losses, collate

log = logging.getLogger("lmtasks.training")

SAVE_SECONDS = 120.0
"""Between checkpoints at most: what a kill can cost."""
VALIDATIONS = 10
"""Of a training, evenly over its steps."""
WAIT_SECONDS = 7 * 24 * 3600
"""For which other processes wait while the first one scores."""
MOMENTUM = 0.9
OPTIMIZERS: dict[Optimizer, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "adamw": (torch.optim.AdamW, {}),
    "adam": (torch.optim.Adam, {}),
    "rmsprop": (torch.optim.RMSprop, {}),
    # Its own rate of learning would take no notice of the one that was asked for.
    "adafactor": (Adafactor, {"scale_parameter": False, "relative_step": False}),
    "sgd": (torch.optim.SGD, {"momentum": MOMENTUM}),
}


class MicroBatches(Dataset[Batch]):
    """The parts that steps are computed in, each a batch: step after step, for each the parts of all processes."""

    def __init__(
        self,
        sequences: Sequence[TrainingExample],
        steps: Sequence[Sequence[int]],
        parts: int,
        *,
        packed: bool,
        pad_id: int,
    ) -> None:
        """Take sequences, for each step the places of its own, and how many parts a step has."""
        self.sequences, self.steps, self.parts = sequences, steps, parts
        self.packed, self.pad_id = packed, pad_id

    @property
    def first(self) -> Batch:
        """The first sequence alone."""
        return collate(self.sequences[:1], packed=self.packed, pad_id=self.pad_id, weight=0.0)

    def __len__(self) -> int:
        return len(self.steps) * self.parts

    def __getitem__(self, index: int) -> Batch:
        step, part = divmod(index, self.parts)
        places = self.steps[step]
        # Every token of a step counts alike, in whatever part it is computed.
        weight = 1 / sum(self.sequences[place].learned for place in places)
        own = places[part :: self.parts]
        if not own:  # the last step may have fewer examples than parts
            own, weight = places[:1], 0.0
        return collate([self.sequences[place] for place in own], packed=self.packed, pad_id=self.pad_id, weight=weight)


class AdapterTrainer(Trainer):
    """Trains the weights of an adapter on planned steps."""

    def __init__(
        self,
        *,
        folder: Path,
        supports_logits_to_keep: bool,
        validation: Sequence[Batch],
        watch: TrainingMonitor,
        **settings: Any,
    ) -> None:
        """Take what Trainer takes, and more.

        Args:
            folder: where checkpoints are kept.
            supports_logits_to_keep: whether the model can compute logits at some positions alone.
            validation: batches whose mean loss chooses the best checkpoint; empty: the last one is the best.
            watch: knows the time; it is among the callbacks.
            **settings: of Trainer.
        """
        super().__init__(callbacks=[watch, *settings.pop("callbacks", ())], **settings)
        self.watch = watch
        self.folder, self.supports_logits_to_keep, self.validation = folder, supports_logits_to_keep, validation
        self.loss_is_scaled_for_ga = True  # by the weights of Parts
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the mean loss of the step's answers, as far as they are in this part.

        Raises:
            TrainingError: it is no number.
        """
        losses = answer_losses(model, inputs, supports_logits_to_keep=self.supports_logits_to_keep)
        # Processes average their gradients, where those of the parts have to be summed.
        loss = losses.sum() * inputs["weight"] * self.accelerator.num_processes
        if not torch.isfinite(loss):
            raise self._diverged("the loss")
        return loss

    def _check_last_step(self) -> None:
        """Refuse weights that were spoilt by the last step, of which no later loss would tell.

        Raises:
            TrainingError: with them the loss of an example is no longer a number.
        """
        one = self._prepare_inputs(self.train_dataset.first)
        self.model.eval()  # dropout would draw numbers, more of them the more often it is saved
        with torch.no_grad(), self.compute_loss_context_manager(), self.accelerator.autocast():
            losses = answer_losses(self.model, one, supports_logits_to_keep=self.supports_logits_to_keep)
        if not losses.isfinite().all():
            raise self._diverged("the loss")

    def _diverged(self, what: str) -> TrainingError:
        kept = "the last good checkpoint, if any, is kept"
        return TrainingError(
            f"{what} is no longer a number at step {self.state.global_step + 1}; {kept}. Begin anew with a lower"
            f" {option('learning_rate')}, a longer {option('warmup')} or {option('dtype', 'float32')}"
        )

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return the mean loss of the validation data, in nats per token of the answers, as "eval_loss"."""
        self.model.eval()
        total, tokens = 0.0, 0
        with torch.no_grad(), self.compute_loss_context_manager(), self.accelerator.autocast():
            for batch in self.validation:
                losses = answer_losses(
                    self.model, self._prepare_inputs(batch), supports_logits_to_keep=self.supports_logits_to_keep
                )
                total += float(losses.double().sum())
                tokens += len(losses)
        if not math.isfinite(total):
            raise self._diverged("the validation loss")
        metrics = {"eval_loss": total / tokens}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Write adapter, optimizer, schedule and random state aside, and rename them.

        Trainer's own way writes in place: a kill leaves the newest checkpoint torn.
        """
        step = self.state.global_step
        main = self.is_world_process_zero()
        path = checkpoint(self.folder, step)
        wait = self.accelerator.wait_for_everyone
        wait()
        if path.exists():  # a training that goes on saves the same again
            return
        self._check_last_step()
        with writing_aside(path, main=main, wait=wait) as aside:
            if main:
                self.accelerator.unwrap_model(model).save_pretrained(aside, save_embedding_layers=False)
            self._save_optimizer_and_scheduler(str(aside))
            self._save_rng_state(str(aside))
            if main:
                for part in (*self.callback_handler.callbacks, self.control):
                    if isinstance(part, ExportableState):
                        self.state.stateful_callbacks[type(part).__name__] = part.state()
                self.state.log_history.append({"step": step, "seconds": self.watch.spent})
                self.state.save_to_json(str(aside / STATE))
        if main:
            remove_old(self.folder, {step, self.state.best_global_step or step})


class TrainingMonitor(TrainerCallback):
    """Tells of progress, saves in time, ends in time, and stops what has diverged."""

    def __init__(
        self,
        what: str,
        on_progress: OnProgress,
        *,
        validates: bool,
        max_minutes: float | None,
        spent: float,
    ) -> None:
        """Take what is being trained and who hears of it, for how many minutes it may go on, and the seconds spent."""
        self.what, self.on_progress, self.validates = what, on_progress, validates
        self.seconds = None if max_minutes is None else max_minutes * 60
        self.begun = self.saved = time.monotonic()
        self.before = spent
        self.losses: dict[str, float] = {}
        self.stepped = False

    @property
    def spent(self) -> float:
        """Seconds of training so far, those before an interruption included."""
        return self.before + time.monotonic() - self.begun

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clocks."""
        self.begun = self.saved = time.monotonic()
        self.on_progress(self.what, state.global_step, state.max_steps)

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel | None = None,
        **_: Any,
    ) -> None:
        """Refuse gradients that are no numbers before they spoil the weights.

        Raises:
            TrainingError: there are some.
        """
        if model is None:
            return
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        if not torch.stack([gradient.sum() for gradient in gradients]).sum().isfinite():
            raise TrainingError(
                f"the gradient is no longer a number at step {state.global_step + 1}; the last good checkpoint, if any,"
                f" is kept. Begin anew with a lower {option('learning_rate')}, a longer {option('warmup')} or"
                f" {option('dtype', 'float32')}"
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for the checkpoints and validations that are due."""
        self.stepped = True
        now = time.monotonic()
        if self.seconds is not None and self.spent > self.seconds:
            control.should_training_stop = True
        if state.global_step >= state.max_steps or control.should_training_stop:
            control.should_save = True
            control.should_evaluate = self.validates
            control.should_log = True
        if _agreed(now - self.saved > SAVE_SECONDS, args.device):
            control.should_save = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Keep what was validated: it may be the best."""
        control.should_save = state.global_step > 0

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock of checkpoints anew."""
        self.saved = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Tell of step and losses."""
        for name, said in (("loss", "loss"), ("eval_loss", "validation")):
            if logs and name in logs:
                self.losses[said] = logs[name]
        note = ", ".join(f"{name} {value:.3f}" for name, value in self.losses.items())
        self.on_progress(self.what, state.global_step, state.max_steps, note)


def _agreed(wish: bool, device: torch.device) -> bool:
    """Return whether any process has a wish: what they do together, such as saving, must not hang on one's clock."""
    if not torch.distributed.is_initialized():
        return wish
    wishes = torch.tensor(float(wish), device=device)
    torch.distributed.all_reduce(wishes, op=torch.distributed.ReduceOp.MAX)
    return bool(wishes)


def training_arguments(
    options: TrainOptions,
    folder: Path,
    *,
    steps: int,
    accumulated: int,
    validates: bool,
    resumed: bool,
    dtype: torch.dtype,
    device: str,
) -> TrainingArguments:
    """Return Trainer's settings for ours.

    Args:
        options: what was asked for.
        folder: for what Trainer and trackers write.
        steps: of the whole training.
        accumulated: parts of a step that each process computes.
        validates: whether there is validation data.
        resumed: whether it goes on from a checkpoint.
        dtype: of the base model.
        device: that it is on.
    """
    every = max(1, steps // VALIDATIONS)
    checkpointing: dict[str, Any] = {}
    if options.gradient_checkpointing:
        checkpointing = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    warmup = options.warmup if options.warmup >= 1 else options.warmup * steps
    schedule = "constant_with_warmup" if options.schedule == "constant" else options.schedule
    # accelerate's launcher sets it, and it would win over the dtype that was asked for and is recorded.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if dtype == torch.bfloat16 else "no"
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,  # of Parts
        gradient_accumulation_steps=accumulated,
        **checkpointing,
        learning_rate=options.learning_rate,
        lr_scheduler_type=schedule,
        warmup_steps=min(round(warmup), steps),
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        seed=options.seed,
        bf16=dtype == torch.bfloat16,
        use_cpu=device == "cpu",
        eval_strategy="steps" if validates else "no",
        eval_steps=every,
        eval_on_start=validates and not resumed,
        metric_for_best_model="loss" if validates else None,
        greater_is_better=False if validates else None,
        save_strategy="steps",
        save_steps=steps + 1,  # Watch says when
        restore_callback_states_from_checkpoint=True,
        logging_steps=max(1, steps // 100),
        logging_nan_inf_filter=False,
        report_to=list(options.report_to) or "none",
        run_name=folder.parent.name,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=device != "cpu",
        ddp_timeout=WAIT_SECONDS,
        ddp_find_unused_parameters=False,
    )
    # Of several GPUs that one process sees, it takes one: torch's DataParallel would tear batches apart.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def seconds_spent(state: TrainerState) -> float:
    """Return for how long a training had gone on at a checkpoint."""
    return max((entry["seconds"] for entry in state.log_history if "seconds" in entry), default=0.0)


def has_ended(state: TrainerState) -> bool:
    """Tell from a checkpoint's state whether the training came to its end with it, early or not."""
    control = state.stateful_callbacks.get("TrainerControl", {}).get("args", {})
    return state.global_step >= state.max_steps or bool(control.get("should_training_stop"))


def early_stopping(options: TrainOptions) -> list[TrainerCallback]:
    """Return what ends a training that no longer gets better, if that was asked for."""
    return [EarlyStoppingCallback(options.early_stopping)] if options.early_stopping else []
