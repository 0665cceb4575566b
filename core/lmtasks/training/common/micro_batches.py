"""Micro-batches: the parts that a step is computed in, and how long one takes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch.utils.data import Dataset

from lmtasks.training.common.dataset import TrainingExample
from lmtasks.training.common.distributed import world_size
from lmtasks.training.common.packing import Batch, collate

MICRO_BATCH_TOKENS = 4096
"""Tokens of a micro-batch, unless a number of micro-batches is given: they bound the memory of a training."""
TIMED_MICRO_BATCHES = 3
"""Micro-batches of a step of median size that are timed to estimate the duration of a training."""

TokenLosses = Callable[[torch.nn.Module, Batch], torch.Tensor]
"""Returns the loss of each target token of a batch, in nats, shape [target tokens]."""


class MicroBatches(Dataset[Batch]):
    """All steps, each as the same number of micro-batches; with several processes, those of all of them in turn."""

    def __init__(
        self,
        examples: Sequence[TrainingExample],
        steps: Sequence[Sequence[int]],
        per_step: int,
        *,
        packed: bool,
        pad_id: int,
    ) -> None:
        """Divide steps into micro-batches.

        Args:
            examples: the training data.
            steps: the indices of each step's examples.
            per_step: micro-batches of a step, those of all processes together.
            packed: whether a micro-batch is a single row, instead of a padded row for each example.
            pad_id: fills shorter rows.
        """
        self.examples, self.steps, self.per_step = examples, steps, per_step
        self.packed, self.pad_id = packed, pad_id

    @property
    def probe(self) -> Batch:
        """The first example alone."""
        return collate(self.examples[:1], packed=self.packed, pad_id=self.pad_id, weight=0.0)

    @property
    def first_micro_batch_tokens(self) -> list[int]:
        """Tokens of the first micro-batch of each step; no other of the step has more examples."""
        return [sum(len(self.examples[index].token_ids) for index in step[:: self.per_step]) for step in self.steps]

    def __len__(self) -> int:
        return len(self.steps) * self.per_step

    def __getitem__(self, index: int) -> Batch:
        number, part = divmod(index, self.per_step)
        step = self.steps[number]
        # Every target token of a step has the same weight, in whatever micro-batch it is.
        weight = 1 / sum(self.examples[index].target_tokens for index in step)
        indices = step[part :: self.per_step]
        if not indices:  # the last step may have fewer examples than micro-batches
            indices, weight = step[:1], 0.0
        examples = [self.examples[index] for index in indices]
        return collate(examples, packed=self.packed, pad_id=self.pad_id, weight=weight)


def micro_batches_per_step(
    lengths: Sequence[int], steps: Sequence[Sequence[int]], gradient_accumulation: int | None
) -> int:
    """Return how many micro-batches a step has, those of all processes together.

    Args:
        lengths: tokens of each example.
        steps: the indices of each step's examples.
        gradient_accumulation: micro-batches of a step in each process; None: as many as keep one at about
            MICRO_BATCH_TOKENS tokens.
    """
    if gradient_accumulation is None:
        longest = max(sum(lengths[index] for index in step) for step in steps)
        gradient_accumulation = math.ceil(longest / world_size() / MICRO_BATCH_TOKENS)
    # No more than examples: the others would be computed for nothing.
    return min(gradient_accumulation, math.ceil(max(map(len, steps)) / world_size())) * world_size()


def validation_batches(examples: Sequence[TrainingExample], data: MicroBatches) -> list[Batch]:
    """Return the validation data in batches of about the size of the training's micro-batches."""
    size = max(1, math.ceil(statistics.mean(map(len, data.steps)) / data.per_step))
    return [
        collate(examples[start : start + size], packed=data.packed, pad_id=data.pad_id, weight=0.0)
        for start in range(0, len(examples), size)
    ]


def seconds_per_token(
    model: torch.nn.Module, data: MicroBatches, token_losses: TokenLosses, *, device: torch.device, bf16: bool
) -> float:
    """Return the median of the seconds per token that forward and backward pass take.

    The largest micro-batch is computed first, so that the peak of memory is that of the training.

    Args:
        model: in training mode; its gradients are removed.
        data: the training data.
        token_losses: the loss function.
        device: the device of the model.
        bf16: whether to compute in bfloat16 autocast.
    """
    sizes = data.first_micro_batch_tokens
    by_size = sorted(range(len(sizes)), key=sizes.__getitem__)
    chosen = [by_size[-1], *[by_size[len(by_size) // 2]] * TIMED_MICRO_BATCHES]
    seconds: list[float] = []
    for step in chosen:
        batch = {name: value.to(device) for name, value in data[step * data.per_step].items()}
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = token_losses(model, batch).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - start) / sizes[step])
        model.zero_grad(set_to_none=True)
    return statistics.median(seconds[1:])
