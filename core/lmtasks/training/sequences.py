"""Examples as token sequences, and the steps that they are learned in."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lmtasks.errors import PromptError
from lmtasks.progress import OnProgress
from lmtasks.prompts import OnOverlong, OverlongPromptError, Renderer
from lmtasks.task import Example


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """A prompt with the answer that is learned behind it."""

    token_ids: array[int]
    """Prompt, answer and end token."""
    learned: int
    """How many of the last ones are learned: the answer and its end token."""
    cut: bool
    """Whether the prompt lost text to fit."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """The token sequences of examples."""

    items: tuple[TokenSequence, ...]
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
) -> Sequences:
    """Render examples as they are rendered to be answered, each with its answer.

    Args:
        renderer: of the task and the model's tokenizer.
        examples: with an answer each.
        max_length: tokens of prompt and answer together; a prompt that is too long is cut or skipped.
        end_id: the token that ends an answer.
        on_overlong: what to do with an example that is longer.
        on_progress: hears how far it is.

    Raises:
        PromptError: examples are too long and may be neither cut nor skipped.
    """
    items: list[TokenSequence] = []
    overlong: list[OverlongPromptError] = []
    for number, example in enumerate(examples):
        if number and number % 1000 == 0:
            on_progress(f"rendering {renderer.task.name}", number, len(examples))
        try:
            pair = renderer.render_pair(example, max_length, end_id, on_overlong=on_overlong)
        except OverlongPromptError as error:
            overlong.append(error)
            continue
        ids = pair.prompt.token_ids + pair.answer_ids
        items.append(TokenSequence(ids, len(pair.answer_ids), bool(pair.prompt.cut)))
    if overlong and on_overlong != "skip":
        raise PromptError(
            f"{len(overlong)} of {len(examples)} examples are too long to learn from. The first: {overlong[0]}. Use"
            f" --on-overlong skip{'' if on_overlong == 'cut' else ' or cut'}, or a larger --max-length"
        )
    if not items:
        raise PromptError(f"all {len(examples)} examples are too long to learn from; use a larger --max-length")
    return Sequences(tuple(items), len(overlong))


def plan_steps(
    lengths: Sequence[int],
    *,
    batch_size: int,
    batch_tokens: int | None,
    epochs: float,
    max_steps: int | None,
    seed: int,
) -> list[list[int]]:
    """Return for each step the places of the sequences that it learns.

    Every pass over the data is in an order of its own; a step goes on into the next pass where one ends, so that all
    steps but the last are full.

    Args:
        lengths: of the sequences, in tokens.
        batch_size: sequences of a step.
        batch_tokens: tokens of a step instead (None: `batch_size` counts); a longer sequence has one of its own.
        epochs: passes, where `max_steps` is None.
        max_steps: how many steps.
        seed: of the orders.
    """
    left = None if max_steps is not None else max(1, round(epochs * len(lengths)))
    steps: list[list[int]] = []
    step: list[int] = []
    tokens = 0
    for place in _endless(len(lengths), seed):
        if left == 0:
            break
        full = len(step) >= batch_size if batch_tokens is None else tokens + lengths[place] > batch_tokens
        if step and full:
            steps.append(step)
            if len(steps) == max_steps:
                return steps
            step, tokens = [], 0
        step.append(place)
        tokens += lengths[place]
        if left is not None:
            left -= 1
    return [*steps, step]


def _endless(count: int, seed: int) -> Iterator[int]:
    number = 0
    while True:
        order = list(range(count))
        random.Random(f"{seed}:{number}").shuffle(order)  # noqa: S311 - an order to repeat, not a secret
        yield from order
        number += 1
