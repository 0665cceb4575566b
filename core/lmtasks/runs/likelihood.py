"""How likely a model finds the references of examples, measured behind their prompts."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence

from lmtasks.backends import Continuation, LanguageModel
from lmtasks.errors import ModelError, option
from lmtasks.prompts import RenderedPrompt, Renderer
from lmtasks.task import Example, LogLikelihood, Task


def render_answers(task: Task, examples: Sequence[Example], renderer: Renderer) -> dict[str, array[int]]:
    """Return the token ids of every text whose likelihood is to be measured."""
    texts = {text for example in examples for text in reference_texts(task, example)}
    return {text: renderer.render_answer(text) if text else array("i") for text in texts}


def reference_texts(task: Task, example: Example) -> tuple[str, ...]:
    """Return the references of an example as a model would write them."""
    return tuple(text or task.no_answer or "" for text in example.references)


def measure_likelihoods(
    task: Task,
    asked: Sequence[tuple[Example, RenderedPrompt]],
    model: LanguageModel,
    answers: Mapping[str, Sequence[int]],
    *,
    adapter: str | None,
    batch_size: int | None,
) -> list[tuple[LogLikelihood, ...]]:
    """Return for each example how likely the model finds its references; nothing where that was not asked for.

    Args:
        task: says what is written where no answer is right.
        asked: examples with their rendered prompts.
        model: measures.
        answers: what `render_answers` returned; empty: nothing is measured.
        adapter: that measures, as in Continuation.
        batch_size: texts at once, as in `LanguageModel.loglikelihood`.

    Raises:
        ModelError: the model gives something else than a number.
    """
    texts = [reference_texts(task, example) if answers else () for example, _ in asked]
    places = [(at, text) for at, own in enumerate(texts) for text in own if answers[text]]
    measured: dict[tuple[int, str], float] = {}
    continuations = [
        # What ends reasoning before an answer is given, and not measured.
        Continuation(asked[at][1].token_ids + asked[at][1].answer_start, answers[text], adapter)
        for at, text in places
    ]
    for together in model.loglikelihood(continuations, batch_size=batch_size) if continuations else ():
        for place, logprob in together:
            if not math.isfinite(logprob):
                example, _ = asked[places[place][0]]
                raise ModelError(
                    f'{model.info.name} gives no number for the likelihood of a reference of example "{example.id}":'
                    f" computing in {model.info.dtype} overflowed; try {option('dtype', 'float32')}"
                )
            measured[places[place]] = logprob
    return [
        tuple(
            # A text without any token is certain.
            LogLikelihood(
                logprob=measured.get((at, text), 0.0), tokens=len(answers[text]), bytes=len(text.encode("utf-8"))
            )
            for text in own
        )
        for at, own in enumerate(texts)
    ]
