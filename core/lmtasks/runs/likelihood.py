"""Log-likelihoods of the references of examples, given their prompts."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence

from lmtasks.backends import Continuation, LanguageModel
from lmtasks.errors import ModelError, option
from lmtasks.prompts import RenderedPrompt, Renderer
from lmtasks.task import Example, LogLikelihood, Task


def check_logprobs(model: LanguageModel) -> None:
    """Refuse a model whose backend computes no log-likelihoods.

    Raises:
        ModelError: names the backend and the option.
    """
    if not model.capabilities.logprobs:
        raise ModelError(
            f"the backend {model.backend} of {model.info.name} computes no log-likelihoods; leave out"
            f" {option('loglikelihood', True)}"
        )


def render_answers(task: Task, examples: Sequence[Example], renderer: Renderer) -> dict[str, array[int]]:
    """Return the token ids of every text whose likelihood will be measured."""
    texts = {text for example in examples for text in reference_texts(task, example)}
    return {text: renderer.render_answer(text) if text else array("i") for text in texts}


def reference_texts(task: Task, example: Example) -> tuple[str, ...]:
    """Return the references of an example as a model would write them."""
    return tuple(text or task.output.no_answer or "" for text in example.references)


def measure_likelihoods(
    task: Task,
    rendered: Sequence[tuple[Example, RenderedPrompt]],
    model: LanguageModel,
    answers: Mapping[str, Sequence[int]],
    *,
    adapter: str | None,
    batch_size: int | None,
) -> list[tuple[LogLikelihood, ...]]:
    """Return for each example the log-likelihoods of its references; empty if `answers` is.

    Args:
        task: the task; says what is written where no answer is right.
        rendered: examples with their rendered prompts.
        model: the model that measures.
        answers: what `render_answers` returned; empty: nothing is measured.
        adapter: the adapter that measures, as in Continuation.
        batch_size: texts at once, as in `LanguageModel.loglikelihood`.

    Raises:
        ModelError: the model returned something other than a number.
    """
    texts = [reference_texts(task, example) if answers else () for example, _ in rendered]
    # A text without any token needs no measurement: it is certain.
    pairs = [(index, text) for index, references in enumerate(texts) for text in references if answers[text]]
    measured: dict[tuple[int, str], float] = {}
    continuations = [
        # The prompt with what ends reasoning before an answer, which is given and not measured.
        Continuation(rendered[index][1].token_ids + rendered[index][1].answer_start, answers[text], adapter)
        for index, text in pairs
    ]
    for finished in model.loglikelihood(continuations, batch_size=batch_size) if continuations else ():
        for number, logprob in finished:
            if not math.isfinite(logprob):
                example, _ = rendered[pairs[number][0]]
                raise ModelError(
                    f'{model.info.name} gives no number for the likelihood of a reference of example "{example.id}":'
                    f" computing in {model.info.dtype} overflowed; try {option('dtype', 'float32')}"
                )
            measured[pairs[number]] = logprob
    return [
        tuple(
            LogLikelihood(
                logprob=measured.get((index, text), 0.0), tokens=len(answers[text]), bytes=len(text.encode("utf-8"))
            )
            for text in references
        )
        for index, references in enumerate(texts)
    ]
