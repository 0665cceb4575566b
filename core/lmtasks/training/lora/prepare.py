"""A training that is ready to begin: examples rendered, steps planned, the time of a step measured."""

from __future__ import annotations

import inspect
import math
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from peft import PeftModel

from lmtasks.errors import UsageError
from lmtasks.models.loading import LoadedModel
from lmtasks.models.quiet import quiet
from lmtasks.options import TrainOptions
from lmtasks.progress import OnProgress
from lmtasks.prompts import Renderer
from lmtasks.runs.environment import peak_memory_bytes
from lmtasks.training.common.dataset import (
    StepSettings,
    TokenizedDataset,
    check_size,
    iterate_steps,
    plan_steps,
    planned_examples,
    render_sequences,
)
from lmtasks.training.common.distributed import processes
from lmtasks.training.common.packing import answer_losses, supports_packing
from lmtasks.training.common.trainer import VALIDATIONS, MicroBatches
from lmtasks.training.lora.adapter import lora_attached, packed_attention_if, report_oom
from lmtasks.training.lora.plan import TrainingPlan

PART_TOKENS = 4096
"""Of a part of a step, unless asked otherwise: what bounds the memory of a training."""
TIMED_PARTS = 3
"""Parts of ordinary steps that are timed to tell how long a training will take."""
FORWARD_SHARE = 1 / 3
"""Of the time of a step, what its forward pass takes: a validation has no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetup:
    """A training that is ready to begin: what it will do, and what that is expected to take."""

    train: TokenizedDataset
    validation: TokenizedDataset | None
    steps: Sequence[Sequence[int]]
    parts: int
    """That a step is computed in, by all processes together."""
    packed: bool
    supports_logits_to_keep: bool
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


def prepare(
    plan: TrainingPlan,
    loaded: LoadedModel,
    renderer: Renderer,
    on_progress: OnProgress,
    *,
    timed_steps: int | None = None,
) -> TrainingSetup:
    """Render the examples, plan the steps, and measure how long they take.

    Args:
        plan: what is learned.
        loaded: the base model.
        renderer: of the task and the model's tokenizer.
        on_progress: hears how far it is.
        timed_steps: that fit into the limit of time, if there is one; None: by the speed measured now.

    Raises:
        PromptError: examples are too long.
        UsageError: the model has no layers of the names that were asked for, or a tracker is not installed.
    """
    options, module = plan.options, loaded.module
    _check_trackers(options)
    context = loaded.info.context_length
    max_length = min(options.max_length, context) if context else options.max_length

    def render(examples: Sequence[Any]) -> TokenizedDataset:
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
    supports_logits_to_keep = "logits_to_keep" in _forward_arguments(module)
    packed = supports_packing(module, supports_logits_to_keep=supports_logits_to_keep)
    lengths = [len(item.token_ids) for item in train.items]
    how: StepSettings = {
        "batch_size": options.batch_size,
        "batch_tokens": options.batch_tokens,
        "epochs": 1.0 if options.epochs is None else options.epochs,
        "max_steps": options.max_steps,
        "seed": options.seed,
    }
    if options.max_minutes is None:
        steps = plan_steps(lengths, **how)
    else:  # which may allow far fewer steps than were asked for: the others are not planned
        check_size(1, min(planned_examples(lengths, how)))
        following = iterate_steps(lengths, **how)
        steps = _first_steps(following, len(lengths))
    accumulated = options.gradient_accumulation
    if accumulated is None:
        longest = max(sum(lengths[place] for place in step) for step in steps)
        accumulated = math.ceil(longest / processes() / PART_TOKENS)
    # No more parts than examples: the others would be computed for nothing.
    parts = min(accumulated, math.ceil(max(map(len, steps)) / processes())) * processes()
    on_progress("measuring a step", 0, 0)
    with quiet(), lora_attached(loaded, options) as model:
        trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        data = MicroBatches(train.items, steps, parts, packed=packed, pad_id=loaded.pad_id)
        per_token, memory = _measure(
            model, data, loaded, options, packed=packed, supports_logits_to_keep=supports_logits_to_keep
        )
    validated = validation.tokens * FORWARD_SHARE * (VALIDATIONS + 1) if validation else 0.0
    if options.max_minutes is not None:
        # As many steps as fit: the schedule of the learning rate has to end when the time does.
        left = max(0.0, options.max_minutes * 60 - validated * per_token)
        most_tokens = left * processes() / per_token
        steps = _steps_in_time(chain(steps, following), lengths, most_tokens, timed_steps)
    step_tokens = sum(lengths[place] for step in steps for place in step)
    return TrainingSetup(
        train=train,
        validation=validation,
        steps=steps,
        parts=parts,
        packed=packed,
        supports_logits_to_keep=supports_logits_to_keep,
        max_length=max_length,
        step_tokens=step_tokens,
        trainable=trainable,
        seconds=(step_tokens / processes() + validated) * per_token,
        memory_bytes=memory,
    )


def _first_steps(steps: Iterator[list[int]], examples: int) -> list[list[int]]:
    """Take the steps that the speed is measured on: those of the first pass over the data, but at least one."""
    first = [next(steps)]
    learned = len(first[0])
    while learned < examples and (step := next(steps, None)):
        first.append(step)
        learned += len(step)
    return first


def _steps_in_time(
    steps: Iterable[list[int]], lengths: Sequence[int], most_tokens: float, timed_steps: int | None
) -> list[list[int]]:
    """Return the first steps, as many as were timed before or else as have no more than `most_tokens`; at least one.

    Raises:
        UsageError: they are too many to be planned.
    """
    kept: list[list[int]] = []
    tokens = examples = 0
    for step in steps:
        tokens += sum(lengths[place] for place in step)
        full = tokens > most_tokens if timed_steps is None else len(kept) == timed_steps
        if kept and full:
            break
        kept.append(step)
        examples += len(step)
        check_size(len(kept), examples)
    return kept


def _measure(
    model: PeftModel,
    data: MicroBatches,
    loaded: LoadedModel,
    options: TrainOptions,
    *,
    packed: bool,
    supports_logits_to_keep: bool,
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
    with report_oom(), packed_attention_if(loaded, packed=packed):
        for step in chosen:
            batch = {name: value.to(device) for name, value in data[step * data.parts].items()}
            begun = time.perf_counter()
            with cast:
                loss = answer_losses(model, batch, supports_logits_to_keep=supports_logits_to_keep).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            if device.type == "cuda":
                torch.cuda.synchronize()
            per_token.append((time.perf_counter() - begun) / sizes[step])
            model.zero_grad(set_to_none=True)
    if options.gradient_checkpointing:
        model.gradient_checkpointing_disable()
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else peak_memory_bytes()
    return statistics.median(per_token[1:]), memory


def _forward_arguments(module: torch.nn.Module) -> Sequence[str]:
    return list(inspect.signature(module.forward).parameters)


def _check_trackers(options: TrainOptions) -> None:
    from transformers.integrations import get_available_reporting_integrations

    for name in options.report_to:
        if name not in get_available_reporting_integrations():
            raise UsageError(f"report_to {name}: not installed, or unknown to transformers; try pip install {name}")
