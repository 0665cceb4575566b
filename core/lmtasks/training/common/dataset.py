"""Examples as token sequences, and the steps that they are learned in."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

from lmtasks.errors import PromptError, UsageError, option
from lmtasks.progress import OnProgress
from lmtasks.prompts import OnOverlong, OverlongPromptError, Renderer
from lmtasks.task import Example

MOST_STEPS = 10_000_000
"""Of a training: all of them are planned, and kept in memory, before the first one."""
MOST_EXAMPLES = 100_000_000
"""Of all steps of a training together, each counted as often as it is learned."""


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """A prompt with the answer that is learned behind it."""

    token_ids: array[int]
    """Prompt, answer and end token."""
    learned: int
    """How many of the last ones are learned: the answer and its end token."""
    cut: bool
    """Whether the prompt lost text to fit."""


@dataclass(frozen=True, slots=True)
class TokenizedDataset:
    """The token sequences of examples."""

    items: tuple[TrainingExample, ...]
    skipped: int
    """Examples that are too long and were left out."""

    @property
    def tokens(self) -> int:
        """Of all sequences."""
        return sum(len(item.token_ids) for item in self.items)

    @property
    def learned(self) -> int:
        """Tokens of all answers."""
        return sum(item.learned for item in self.items)

    @property
    def cut(self) -> int:
        """How many lost text of their prompt."""
        return sum(item.cut for item in self.items)


def render_sequences(
    renderer: Renderer,
    examples: Sequence[Example],
    *,
    max_length: int,
    end_id: int,
    on_overlong: OnOverlong,
    on_progress: OnProgress,
) -> TokenizedDataset:
    """Render examples as they are rendered to be answered, each with its answer.

    Args:
        renderer: of the task and the model's tokenizer.
        examples: with an answer each.
        max_length: tokens of prompt and answer together; a prompt that is too long is truncated or skipped.
        end_id: the token that ends an answer.
        on_overlong: what to do with an example that is longer.
        on_progress: hears how far it is.

    Raises:
        PromptError: examples are too long and may be neither truncated nor skipped.
    """
    items: list[TrainingExample] = []
    overlong: list[OverlongPromptError] = []
    for number, pair in enumerate(renderer.render_pairs(examples, max_length, end_id, on_overlong=on_overlong)):
        if number and number % 1000 == 0:
            on_progress(f"rendering {renderer.task.name}", number, len(examples))
        if isinstance(pair, OverlongPromptError):
            overlong.append(pair)
            continue
        ids = pair.prompt.token_ids + pair.answer_ids
        items.append(TrainingExample(ids, len(pair.answer_ids), bool(pair.prompt.truncated)))
    if overlong and on_overlong != "skip":
        ways = " or ".join(option("on_overlong", way) for way in ("skip", "cut") if way != on_overlong)
        raise PromptError(
            f"{len(overlong)} of {len(examples)} examples are too long to learn from. The first: {overlong[0]}. Use"
            f" --on-overlong skip{'' if on_overlong == 'truncate' else ' or truncate'}, or a larger --max-length"
        )
    if not items:
        raise PromptError(
            f"all {len(examples)} examples are too long to learn from; use a larger {option('max_length')}"
        )
    return TokenizedDataset(tuple(items), len(overlong))


class StepSettings(TypedDict):
    """What the steps of a training depend on, besides the lengths of its sequences."""

    batch_size: int
    """Sequences of a step."""
    batch_tokens: int | None
    """Tokens of a step instead (None: `batch_size` counts); a longer sequence has one of its own."""
    epochs: float
    """Passes over the data, where `max_steps` is None."""
    max_steps: int | None
    seed: int
    """Of the orders."""


def plan_steps(lengths: Sequence[int], **settings: Unpack[StepSettings]) -> list[list[int]]:
    """Return all steps that `iterate_steps` yields.

    Raises:
        UsageError: there would be more than MOST_STEPS of them, or MOST_EXAMPLES examples in them.
    """
    examples, of_step = planned_examples(lengths, settings)
    check_size(examples / of_step, examples)
    return list(iterate_steps(lengths, **settings))


def planned_examples(lengths: Sequence[int], settings: StepSettings) -> tuple[float, float]:
    """Return about how many examples all steps together learn, which may be infinite, and how many a full step does."""
    tokens, max_steps = settings["batch_tokens"], settings["max_steps"]
    of_step = float(settings["batch_size"]) if tokens is None else max(1.0, tokens * len(lengths) / sum(lengths))
    return settings["epochs"] * len(lengths) if max_steps is None else max_steps * of_step, of_step


def check_size(steps: float, examples: float) -> None:
    """Refuse a training that is too long to be planned.

    Args:
        steps: of the training.
        examples: of all steps together, each counted as often as it is learned.

    Raises:
        UsageError: there are more than MOST_STEPS steps, or MOST_EXAMPLES examples.
    """
    if steps > MOST_STEPS:
        raise UsageError(
            f"a training has at most {MOST_STEPS:,} steps, and this one would have more; give fewer epochs, max_steps"
            " or max_minutes, or a larger batch_size"
        )
    if examples > MOST_EXAMPLES:
        raise UsageError(
            f"a training learns at most {MOST_EXAMPLES:,} examples, repetitions included, and this one would learn"
            " more; give fewer epochs, max_steps or max_minutes, or a smaller batch_size or batch_tokens"
        )


def iterate_steps(lengths: Sequence[int], **settings: Unpack[StepSettings]) -> Iterator[list[int]]:
    """Yield for each step the places of the sequences that it learns, in lists of one or more.

    Every pass over the data is in an order of its own; a step goes on into the next pass where one ends, so that all
    steps but the last are full.

    Args:
        lengths: of the sequences, in tokens.
        **settings: how large a step is, and how many there are.
    """
    batch_size, batch_tokens, max_steps = settings["batch_size"], settings["batch_tokens"], settings["max_steps"]
    passed = settings["epochs"] * len(lengths)
    # A float's product may be infinite, which no whole number is.
    left = math.inf if max_steps is not None or math.isinf(passed) else max(1, round(passed))
    steps = 0
    step: list[int] = []
    tokens = 0
    for place in _endless(len(lengths), settings["seed"]):
        if left == 0:
            break
        full = len(step) >= batch_size if batch_tokens is None else tokens + lengths[place] > batch_tokens
        if step and full:
            yield step
            steps += 1
            if steps == max_steps:
                return
            step, tokens = [], 0
        step.append(place)
        tokens += lengths[place]
        left -= 1
    yield step


def _endless(count: int, seed: int) -> Iterator[int]:
    number = 0
    while True:
        order = list(range(count))
        random.Random(f"{seed}:{number}").shuffle(order)  # noqa: S311 - an order to repeat, not a secret
        yield from order
        number += 1
