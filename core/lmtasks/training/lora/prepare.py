"""A training that is ready to begin: examples tokenized, steps planned, and the speed of a step measured."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from peft import PeftModel

from lmtasks.errors import UsageError, option
from lmtasks.kernels.packed_attention import packed_attention
from lmtasks.models.loading import LoadedModel
from lmtasks.models.quiet import quiet
from lmtasks.options import TrainOptions
from lmtasks.progress import OnProgress
from lmtasks.prompts import Renderer
from lmtasks.runs.environment import peak_memory_bytes
from lmtasks.task import Example
from lmtasks.training.common.contexts import report_oom
from lmtasks.training.common.dataset import TokenizedDataset
from lmtasks.training.common.distributed import world_size
from lmtasks.training.common.micro_batches import MicroBatches, TokenLosses, micro_batches_per_step, seconds_per_token
from lmtasks.training.common.packing import answer_losses, supports_packing
from lmtasks.training.common.steps import (
    StepSettings,
    check_size,
    first_pass,
    iterate_steps,
    limit_steps,
    plan_steps,
    planned_examples,
)
from lmtasks.training.common.trainer import VALIDATIONS
from lmtasks.training.lora.adapter import lora_attached
from lmtasks.training.lora.plan import TrainingPlan
from lmtasks.training.lora.tokenize import tokenize_examples

FORWARD_SHARE = 1 / 3
"""The share of a step's time that its forward pass takes: a validation has no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSetup:
    """Tokenized data, steps and micro-batches of a training, and the time and memory that it is expected to take."""

    train: TokenizedDataset
    validation: TokenizedDataset | None
    data: MicroBatches
    supports_logits_to_keep: bool
    """Whether the model can compute logits at some positions alone."""
    max_length: int
    step_tokens: int
    """Tokens of all steps together, prompts and answers."""
    trainable_weights: int
    """Number of the adapter's weights."""
    seconds: float
    """Expected duration of the training, by the speed of a few steps that were measured."""
    memory_bytes: int | None
    """Peak of memory while the largest micro-batch was computed."""

    @property
    def steps(self) -> Sequence[Sequence[int]]:
        """The indices of each step's examples."""
        return self.data.steps

    @property
    def packed(self) -> bool:
        """Whether the sequences of a micro-batch are packed into one row."""
        return self.data.packed

    @property
    def epochs(self) -> float:
        """Passes over the data."""
        return sum(map(len, self.steps)) / len(self.train.examples)

    @property
    def token_losses(self) -> TokenLosses:
        """The loss function of the training."""
        return partial(answer_losses, supports_logits_to_keep=self.supports_logits_to_keep)


def prepare(
    plan: TrainingPlan,
    loaded: LoadedModel,
    renderer: Renderer,
    on_progress: OnProgress,
    *,
    timed_steps: int | None = None,
) -> TrainingSetup:
    """Tokenize the examples, plan the steps, and measure how long they take.

    Args:
        plan: the examples and options of the training.
        loaded: the base model.
        renderer: the renderer of the task and the model's tokenizer.
        on_progress: called with what is being done.
        timed_steps: how many steps fit into the time limit, if there is one; None: by the speed that is measured.

    Raises:
        PromptError: examples are too long.
        UsageError: the model has no layers of the given names, or a tracker is not installed.
    """
    options, module = plan.options, loaded.module
    _check_trackers(options)
    context = loaded.info.context_length
    max_length = min(options.max_length, context) if context else options.max_length

    def tokenize(examples: Sequence[Example]) -> TokenizedDataset:
        return tokenize_examples(
            renderer,
            examples,
            max_length=max_length,
            end_id=loaded.end_id,
            on_overlong=options.on_overlong,
            on_progress=on_progress,
        )

    train = tokenize(plan.train)
    validation = tokenize(plan.validation) if plan.validation else None
    to_keep = "logits_to_keep" in inspect.signature(module.forward).parameters
    packed = supports_packing(module, supports_logits_to_keep=to_keep)
    settings = _step_settings(options)
    if options.max_minutes is None:
        steps = plan_steps(train.lengths, **settings)
    else:  # the limit may allow far fewer steps than asked for: the others are not planned
        check_size(1, min(planned_examples(train.lengths, settings)))
        following = iterate_steps(train.lengths, **settings)
        steps = first_pass(following, len(train.lengths))
    per_step = micro_batches_per_step(train.lengths, steps, options.gradient_accumulation)
    data = MicroBatches(train.examples, steps, per_step, packed=packed, pad_id=loaded.pad_id)
    losses = partial(answer_losses, supports_logits_to_keep=to_keep)
    on_progress("measuring a step", 0, 0)
    with quiet(), lora_attached(loaded, options) as model:
        trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        per_token, memory = _measure(model, data, loaded, losses, checkpointing=options.gradient_checkpointing)
    validation_tokens = validation.tokens * FORWARD_SHARE * (VALIDATIONS + 1) if validation else 0.0
    if options.max_minutes is not None:
        # As many steps as fit: the schedule of the learning rate has to end when the time does.
        seconds = max(0.0, options.max_minutes * 60 - validation_tokens * per_token)
        max_tokens = seconds * world_size() / per_token
        steps = limit_steps(
            chain(steps, following), train.lengths, max_tokens=max_tokens, max_steps=timed_steps
        )  # fmt: skip
        data = MicroBatches(train.examples, steps, per_step, packed=packed, pad_id=loaded.pad_id)
    step_tokens = sum(train.lengths[index] for step in steps for index in step)
    return TrainingSetup(
        train=train,
        validation=validation,
        data=data,
        supports_logits_to_keep=to_keep,
        max_length=max_length,
        step_tokens=step_tokens,
        trainable_weights=trainable,
        seconds=(step_tokens / world_size() + validation_tokens) * per_token,
        memory_bytes=memory,
    )


def _step_settings(options: TrainOptions) -> StepSettings:
    return {
        "batch_size": options.batch_size,
        "batch_tokens": options.batch_tokens,
        "epochs": 1.0 if options.epochs is None else options.epochs,
        "max_steps": options.max_steps,
        "seed": options.seed,
    }


def _measure(
    model: PeftModel, data: MicroBatches, loaded: LoadedModel, losses: TokenLosses, *, checkpointing: bool
) -> tuple[float, int | None]:
    """Return the seconds per token of a step, and the peak of memory in its largest micro-batch."""
    module = loaded.module
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    bf16 = module.dtype == torch.bfloat16
    with report_oom(), packed_attention(module) if data.packed else nullcontext():
        seconds = seconds_per_token(model, data, losses, device=module.device, bf16=bf16)
    if checkpointing:
        model.gradient_checkpointing_disable()
    memory = torch.cuda.max_memory_allocated() if module.device.type == "cuda" else peak_memory_bytes()
    return seconds, memory


def _check_trackers(options: TrainOptions) -> None:
    from transformers.integrations import get_available_reporting_integrations

    for name in options.report_to:
        if name not in get_available_reporting_integrations():
            raise UsageError(
                f"{option('report_to')} {name}: not installed, or unknown to transformers; try pip install {name}"
            )
