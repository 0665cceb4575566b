"""Samples, built from examples and completions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from lmtasks.backends import Completion
from lmtasks.errors import PluginError
from lmtasks.isolation import Guard, guarded_batch
from lmtasks.languages import states_language
from lmtasks.prompts import RenderedPrompt
from lmtasks.task import Example, LogLikelihood, Sample, Task
from lmtasks.text_utils import as_utf8, is_blank

log = logging.getLogger("lmtasks.runs")


def new_sample(task: Task, index: int, example: Example) -> Sample:
    """Return the sample of an example without a completion."""
    return Sample(
        index=index,
        id=example.id,
        inputs=example.inputs,
        references=example.references,
        language=stated_language(task, example.language),
        meta=example.meta,
        prediction="",
        finish_reason="skipped",
    )


def with_completion(
    sample: Sample,
    prompt: RenderedPrompt,
    completion: Completion,
    loglikelihoods: tuple[LogLikelihood, ...],
) -> Sample:
    """Return a sample with a completion, and the prediction that its task parses from it."""
    return with_prediction(
        task,
        replace(
            sample,
            prompt_sha256=prompt.sha256,
            prompt_tokens=len(prompt.token_ids),
            truncated=prompt.cut,
            completion=completion.text,
            finish_reason=completion.finish,
            completion_tokens=completion.tokens,
            reasoning=completion.reasoning,
            reasoning_tokens=completion.reasoning_tokens,
            loglikelihoods=loglikelihoods,
        ),
    )


def with_prediction(task: Task, sample: Sample) -> Sample:
    """Return a sample with the prediction parsed from its completion; where the parser fails, with its error."""
    try:
        return replace(sample, prediction=parse_completion(task, sample.completion, sample.id), error=None)
    except PluginError as error:
        log.debug("%s", error, exc_info=error)
        return replace(sample, prediction="", error=str(error))


def parse_completion(task: Task, completion: str, example_id: str) -> str:
    """Return the prediction that a task parses from a completion.

    Raises:
        PluginError: the task's parser failed, or did not return text.
    """
    with guarded_call(f'{task.label}: its parser failed on example "{example_id}"'):
        prediction = task.output.read(completion)
    if not isinstance(prediction, str):
        raise PluginError(
            f'{task.label}: its parser returned {type(prediction).__name__} for example "{example_id}", expected text'
        )
    return "" if is_blank(prediction) else as_utf8(prediction)


def stated_language(task: Task, language: str | None) -> str | None:
    """Return the language of an example's references, if the example or its task states one."""
    return language if states_language(language) else task.language
