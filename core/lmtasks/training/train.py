"""From a plan and a loaded model to the weights of an adapter."""

from __future__ import annotations

import gc
import logging
import math
import os
import random
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import set_seed

from lmtasks.errors import TrainingError, UsageError
from lmtasks.model.loading import LoadedModel
from lmtasks.model.quiet import quiet
from lmtasks.progress import OnProgress
from lmtasks.prompts import Renderer
from lmtasks.runs.environment import peak_memory_bytes
from lmtasks.training.checkpoints import checkpoint, checkpoints, remove_old
from lmtasks.training.options import TrainOptions
from lmtasks.training.packing import Batch, answer_losses, can_pack, collate, packed_attention
from lmtasks.training.plan import TrainingPlan
from lmtasks.training.processes import processes, rank
from lmtasks.training.sequences import Sequences, plan_steps, render_sequences
from lmtasks.training.trainer import OPTIMIZERS, AdapterTrainer, Parts, Watch, early_stopping, training_arguments

log = logging.getLogger("lmtasks.training")

PART_TOKENS = 4096
"""Of a part of a step, unless asked otherwise: what bounds the memory of a training."""
TIMED_PARTS = 3
"""Parts of ordinary steps that are timed to tell how long a training will take."""
FORWARD_SHARE = 1 / 3
"""Of the time of a step, what its forward pass takes: a validation has no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A training that is ready to begin: what it will do, and what that is expected to take."""

    train: Sequences
    validation: Sequences | None
    steps: Sequence[Sequence[int]]
    parts: int
    """That a step is computed in, by all processes together."""
    packed: bool
    only_answers: bool
    max_length: int
    step_tokens: int
    """Of all steps together, prompts and answers."""
    trainable: int
    """Weights of the adapter."""
    seconds: float
    """That training is expected to take, by the speed of a few steps just measured."""
    memory_bytes: int | None
    """The peak while the largest part of a step was computed."""

    @property
    def epochs(self) -> float:
        """Passes over the data."""
        return sum(map(len, self.steps)) / len(self.train.items)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What came of a training."""

    checkpoint: Path
    """The best one, or the last where nothing was validated."""
    record: dict[str, Any]
    """Steps, best step, losses, seconds, tokens: as in lmtasks.json."""


def prepare(plan: TrainingPlan, loaded: LoadedModel, renderer: Renderer, on_progress: OnProgress) -> Prepared:
    """Render the examples, plan the steps, and measure how long they take.

    Raises:
        PromptError: examples are too long.
        UsageError: the model has no layers of the names that were asked for, or a tracker is not installed.
    """
    options, module = plan.options, loaded.module
    _check_trackers(options)
    context = loaded.info.context_length
    max_length = min(options.max_length, context) if context else options.max_length

    def render(examples: Sequence[Any]) -> Sequences:
        return render_sequences(
            renderer,
            examples,
            max_length=max_length,
            end_id=loaded.end_id,
            on_overlong=options.on_overlong,
            on_progress=on_progress,
        )

    train = render(plan.train)
    validation = render(plan.validation) if plan.validation else None
    only_answers = "logits_to_keep" in _forward_arguments(module)
    packed = can_pack(module, train.items, only_answers=only_answers)
    lengths = [len(item.token_ids) for item in train.items]
    steps = plan_steps(
        lengths,
        batch_size=options.batch_size,
        batch_tokens=options.batch_tokens,
        epochs=1.0 if options.epochs is None else options.epochs,
        max_steps=options.max_steps,
        seed=options.seed,
    )
    accumulated = options.gradient_accumulation
    if accumulated is None:
        longest = max(sum(lengths[place] for place in step) for step in steps)
        accumulated = math.ceil(longest / processes() / PART_TOKENS)
    parts = accumulated * processes()
    on_progress("measuring a step", 0, 0)
    with _adapter_on(loaded, options) as model:
        trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        data = Parts(train.items, steps, parts, packed=packed, pad_id=loaded.pad_id)
        per_token, memory = _measure(model, data, loaded, options, packed=packed, only_answers=only_answers)
    validated = validation.tokens * FORWARD_SHARE * 11 if validation else 0.0
    if options.max_minutes is not None:
        # As many steps as fit: the schedule of the learning rate has to end when the time does.
        left = max(0.0, options.max_minutes * 60 - validated * per_token)
        total = 0
        for number, step in enumerate(steps):
            total += sum(lengths[place] for place in step)
            if total / processes() * per_token > left:
                steps = steps[: max(1, number)]
                break
    step_tokens = sum(lengths[place] for step in steps for place in step)
    return Prepared(
        train=train,
        validation=validation,
        steps=steps,
        parts=parts,
        packed=packed,
        only_answers=only_answers,
        max_length=max_length,
        step_tokens=step_tokens,
        trainable=trainable,
        seconds=(step_tokens / processes() + validated) * per_token,
        memory_bytes=memory,
    )


def train(
    plan: TrainingPlan, prepared: Prepared, loaded: LoadedModel, folder: Path, on_progress: OnProgress
) -> Trained:
    """Train an adapter, from the newest checkpoint in a folder if there is one.

    Args:
        plan: what is learned.
        prepared: what `prepare` returned for it.
        loaded: the base model; it is as before when this returns.
        folder: for checkpoints.
        on_progress: hears of steps and losses.

    Raises:
        TrainingError: loss or gradient are no longer numbers, or a checkpoint cannot be written or read.
    """
    options = plan.options
    newest = max(checkpoints(folder), default=None)
    if rank() == 0:
        remove_old(folder, set(checkpoints(folder)))
    watch = Watch(
        f"training {plan.task.name}",
        on_progress,
        validates=prepared.validation is not None,
        max_minutes=options.max_minutes,
    )
    if "tensorboard" in options.report_to:
        # The only way to tell transformers; its own choice is a folder that goes with the checkpoints.
        logs = Path(options.output_dir) / "tensorboard" / folder.resolve().parent.name
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(logs))
    validation = _validation_batches(prepared, loaded.pad_id)
    optimizer, settings = OPTIMIZERS[options.optimizer]
    begun = time.monotonic()
    with _memory(), quiet(), _adapter_on(loaded, options) as model, _attending(loaded, packed=prepared.packed):
        trainer = AdapterTrainer(
            folder=folder,
            only_answers=prepared.only_answers,
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
            train_dataset=Parts(
                prepared.train.items, prepared.steps, prepared.parts, packed=prepared.packed, pad_id=loaded.pad_id
            ),
            eval_dataset=validation,
            optimizer_cls_and_kwargs=(optimizer, {"lr": options.learning_rate, **settings}),
            callbacks=[watch, *early_stopping(options)],
        )
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint(folder, newest)) if newest else None)
        except (OSError, ValueError, RuntimeError) as error:
            if newest and trainer.state.global_step == 0:
                raise TrainingError(
                    f"{checkpoint(folder, newest)}: cannot go on from this checkpoint"
                    f" ({' '.join(str(error).split())[:200]}); remove it to go on from the one before"
                ) from error
            raise
        state = trainer.state
        best = state.best_global_step or state.global_step
        processes_used = trainer.accelerator.num_processes
    history = [
        {name: entry[name] for name in ("step", "loss", "eval_loss", "learning_rate", "grad_norm") if name in entry}
        for entry in state.log_history
        if "loss" in entry or "eval_loss" in entry
    ]
    return Trained(
        checkpoint=checkpoint(folder, best),
        record={
            "steps": state.global_step,
            "planned_steps": len(prepared.steps),
            "best_step": best,
            "validation_loss": state.best_metric,
            "examples": len(prepared.train.items),
            "validation_examples": len(plan.validation),
            "skipped": prepared.train.skipped,
            "leaks": plan.leaks,
            "cut": prepared.train.cut,
            "epochs": prepared.epochs * state.global_step / len(prepared.steps),
            "tokens": sum(
                len(prepared.train.items[place].token_ids)
                for step in prepared.steps[: state.global_step]
                for place in step
            ),
            "trainable_weights": prepared.trainable,
            "packed": prepared.packed,
            "processes": processes_used,
            "parts_of_a_step": prepared.parts,
            "seconds": round(time.monotonic() - begun, 3),
            "resumed_at": newest,
            "history": history,
        },
    )


def _only(batches: list[Batch]) -> Batch:
    """Return the batch itself: Parts are collated already."""
    return batches[0]


@contextmanager
def _adapter_on(loaded: LoadedModel, options: TrainOptions) -> Iterator[PeftModel]:
    """Put a fresh adapter on the base model, and take it off again."""
    targets = options.target_modules
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=options.rank,
        lora_alpha=options.scale,  # type: ignore[arg-type] # peft takes any number
        lora_dropout=options.dropout,
        target_modules=targets[0] if targets == ("all-linear",) else list(targets),
        use_rslora=options.rslora,
        use_dora=options.dora,
        revision=loaded.info.revision if loaded.info.source == "hub" else None,
    )
    with _own_randomness():
        set_seed(options.seed)
        model = _wrap(loaded, config, targets)
        try:
            yield model
        finally:
            with quiet():
                model.unload()
            loaded.module.eval()
            loaded.module.zero_grad(set_to_none=True)
            gc.collect()


def _wrap(loaded: LoadedModel, config: LoraConfig, targets: Sequence[str]) -> PeftModel:
    try:
        with quiet():
            model = get_peft_model(loaded.module, config)
    except ValueError as error:
        named = [name for name, layer in loaded.module.named_modules() if isinstance(layer, torch.nn.Linear)]
        last = sorted({name.rpartition(".")[2] for name in named})
        raise UsageError(
            f"target_modules {', '.join(targets)}: {loaded.info.name} has no such layers; it has {', '.join(last)}"
        ) from error
    # As the user knows the base, not where this machine keeps it.
    model.peft_config["default"].base_model_name_or_path = loaded.info.name
    return model


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Leave the random state of python, numpy and torch as it was: a training seeds all of them."""
    python, others = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(others)


@contextmanager
def _memory() -> Iterator[None]:
    """Say in one line that a step needs more memory than a GPU has.

    Raises:
        TrainingError: it does.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "a step needs more memory than the device has; use --gradient-accumulation with a higher number,"
            " --gradient-checkpointing, or a smaller --max-length"
        ) from error


@contextmanager
def _attending(loaded: LoadedModel, *, packed: bool) -> Iterator[None]:
    if packed:
        with packed_attention(loaded.module):
            yield
    else:
        yield


def _measure(
    model: PeftModel,
    data: Parts,
    loaded: LoadedModel,
    options: TrainOptions,
    *,
    packed: bool,
    only_answers: bool,
) -> tuple[float, int | None]:
    """Return the seconds per token of a step, and the peak of memory in its largest part."""
    device = loaded.module.device
    sizes = [sum(len(data.sequences[place].token_ids) for place in step[:: data.parts]) for step in data.steps]
    by_size = sorted(range(len(sizes)), key=lambda step: sizes[step])
    chosen = [by_size[-1], *[by_size[len(by_size) // 2]] * TIMED_PARTS]
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    per_token: list[float] = []
    cast = torch.autocast(device.type, torch.bfloat16, enabled=loaded.module.dtype == torch.bfloat16)
    with _memory(), _attending(loaded, packed=packed):
        for step in chosen:
            batch = {name: value.to(device) for name, value in data[step * data.parts].items()}
            begun = time.perf_counter()
            with cast:
                loss = answer_losses(model, batch, only_answers=only_answers).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            if device.type == "cuda":
                torch.cuda.synchronize()
            per_token.append((time.perf_counter() - begun) / sizes[step])
            model.zero_grad(set_to_none=True)
    if options.gradient_checkpointing:
        model.gradient_checkpointing_disable()
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_memory_bytes()
    return statistics.median(per_token[1:]), memory


def _validation_batches(prepared: Prepared, pad_id: int) -> list[Batch]:
    """Return the validation data in batches of about the size of a part."""
    if prepared.validation is None:
        return []
    items = prepared.validation.items
    size = max(1, math.ceil(statistics.mean(map(len, prepared.steps)) / prepared.parts))
    return [
        collate(items[start : start + size], packed=prepared.packed, pad_id=pad_id, weight=0.0)
        for start in range(0, len(items), size)
    ]


def _forward_arguments(module: torch.nn.Module) -> Sequence[str]:
    import inspect

    return list(inspect.signature(module.forward).parameters)


def _check_trackers(options: TrainOptions) -> None:
    from transformers.integrations import get_available_reporting_integrations

    for name in options.report_to:
        if name not in get_available_reporting_integrations():
            raise UsageError(f"report_to {name}: not installed, or unknown to transformers; try pip install {name}")


def place_adapter(trained: Trained, folder: Path) -> None:
    """Copy the adapter of a checkpoint into its folder, whole or not at all.

    Raises:
        TrainingError: the folder cannot be written.
    """
    from lmtasks.model.adapter import CONFIG, WEIGHTS

    try:
        for name in (WEIGHTS, CONFIG):
            aside = folder / f".{name}.part"
            shutil.copyfile(trained.checkpoint / name, aside)
            os.replace(aside, folder / name)
    except OSError as error:
        raise TrainingError(f"{folder}: the adapter cannot be written ({error}); go on with --resume") from error
