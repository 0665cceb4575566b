"""The optimizer steps of a training, planned ahead: which examples each of them is computed on."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TypedDict, Unpack

from lmtasks.errors import UsageError, option

MAX_STEPS = 10_000_000
"""Optimizer steps of a training at most: all of them are planned, and kept in memory, before the first one."""
MAX_EXAMPLES = 100_000_000
"""Examples of all steps of a training together at most, each counted as often as it is trained on."""


class StepSettings(TypedDict):
    """Settings that decide the steps of a training, besides the lengths of its examples."""

    batch_size: int
    """Examples of a step."""
    batch_tokens: int | None
    """Tokens of a step instead (None: `batch_size` counts); a longer example has a step of its own."""
    epochs: float
    """Passes over the data, where `max_steps` is None."""
    max_steps: int | None
    seed: int
    """Seed of the order of examples in each pass."""


def plan_steps(lengths: Sequence[int], **settings: Unpack[StepSettings]) -> list[list[int]]:
    """Return all steps that `iterate_steps` yields.

    Raises:
        UsageError: there would be more than MAX_STEPS of them, or MAX_EXAMPLES examples in them.
    """
    examples, per_step = planned_examples(lengths, settings)
    check_size(examples / per_step, examples)
    return list(iterate_steps(lengths, **settings))


def planned_examples(lengths: Sequence[int], settings: StepSettings) -> tuple[float, float]:
    """Return about how many examples all steps have together, which may be infinite, and how many a full step has."""
    tokens, max_steps = settings["batch_tokens"], settings["max_steps"]
    per_step = float(settings["batch_size"]) if tokens is None else max(1.0, tokens * len(lengths) / sum(lengths))
    return settings["epochs"] * len(lengths) if max_steps is None else max_steps * per_step, per_step


def check_size(steps: float, examples: float) -> None:
    """Refuse a training that is too long to be planned.

    Args:
        steps: number of steps of the training.
        examples: number of examples of all steps, each counted as often as it is trained on.

    Raises:
        UsageError: there are more than MAX_STEPS steps, or MAX_EXAMPLES examples.
    """
    if steps > MAX_STEPS:
        raise UsageError(
            f"a training has at most {MAX_STEPS:,} steps, and this one would have more; give fewer {option('epochs')},"
            f" {option('max_steps')} or {option('max_minutes')}, or a larger {option('batch_size')}"
        )
    if examples > MAX_EXAMPLES:
        raise UsageError(
            f"a training has at most {MAX_EXAMPLES:,} examples, repetitions included, and this one would have"
            f" more; give fewer {option('epochs')}, {option('max_steps')} or {option('max_minutes')}, or a smaller"
            f" {option('batch_size')} or {option('batch_tokens')}"
        )


def iterate_steps(lengths: Sequence[int], **settings: Unpack[StepSettings]) -> Iterator[list[int]]:
    """Yield for each step the indices of its examples, at least one.

    Every pass over the data has its own random order. A step continues into the next pass where one ends, so that all
    steps but the last are full.

    Args:
        lengths: tokens of each example.
        **settings: the size of a step, and the number of steps.
    """
    batch_size, batch_tokens, max_steps = settings["batch_size"], settings["batch_tokens"], settings["max_steps"]
    planned = settings["epochs"] * len(lengths)
    # A float's product may be infinite, which no integer is.
    left = math.inf if max_steps is not None or math.isinf(planned) else max(1, round(planned))
    steps = 0
    step: list[int] = []
    tokens = 0
    for index in _shuffled_passes(len(lengths), settings["seed"]):
        if left == 0:
            break
        full = len(step) >= batch_size if batch_tokens is None else tokens + lengths[index] > batch_tokens
        if step and full:
            yield step
            steps += 1
            if steps == max_steps:
                return
            step, tokens = [], 0
        step.append(index)
        tokens += lengths[index]
        left -= 1
    yield step


def _shuffled_passes(count: int, seed: int) -> Iterator[int]:
    """Yield indices without end, each pass in an order of its own."""
    number = 0
    while True:
        order = list(range(count))
        random.Random(f"{seed}:{number}").shuffle(order)  # noqa: S311 - an order to repeat, not a secret
        yield from order
        number += 1


def first_pass(steps: Iterator[list[int]], examples: int) -> list[list[int]]:
    """Consume and return the steps of the first pass over the data, at least one.

    Args:
        steps: from `iterate_steps`.
        examples: number of examples of the data.
    """
    first = [next(steps)]
    count = len(first[0])
    while count < examples and (step := next(steps, None)):
        first.append(step)
        count += len(step)
    return first


def limit_steps(
    steps: Iterable[list[int]], lengths: Sequence[int], *, max_tokens: float, max_steps: int | None
) -> list[list[int]]:
    """Return the first `max_steps` steps, or as many as have no more than `max_tokens` tokens; at least one.

    Args:
        steps: from `iterate_steps`.
        lengths: tokens of each example.
        max_tokens: counts where `max_steps` is None.
        max_steps: number of steps that an earlier call allowed.

    Raises:
        UsageError: there are more than MAX_STEPS of them, or MAX_EXAMPLES examples in them.
    """
    kept: list[list[int]] = []
    tokens = examples = 0
    for step in steps:
        tokens += sum(lengths[index] for index in step)
        full = tokens > max_tokens if max_steps is None else len(kept) == max_steps
        if kept and full:
            break
        kept.append(step)
        examples += len(step)
        check_size(len(kept), examples)
    return kept
