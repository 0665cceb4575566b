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
    """Return a sample with a completion; `with_predictions` adds the prediction."""
    return replace(
        sample,
        prompt_sha256=prompt.sha256,
        prompt_tokens=len(prompt.token_ids),
        truncated=prompt.truncated,
        completion=completion.text,
        finish_reason=completion.finish_reason,
        completion_tokens=completion.tokens,
        reasoning=completion.reasoning,
        reasoning_tokens=completion.reasoning_tokens,
        loglikelihoods=loglikelihoods,
    )


def with_predictions(task: Task, samples: Sequence[Sample]) -> list[Sample]:
    """Return samples with the predictions that their task reads from the completions.

    The parser is guarded once for all samples; where it fails, only the failing sample has an error.
    """
    parsed = []
    with guarded_batch() as guard:
        for sample in samples:
            try:
                prediction = _parse(task, sample.completion, sample.id, guard)
                parsed.append(replace(sample, prediction=prediction, error=None))
            except PluginError as error:
                log.debug("%s", error, exc_info=error)
                parsed.append(replace(sample, prediction="", error=str(error)))
    return parsed


def parse_completion(task: Task, completion: str, example_id: str) -> str:
    """Return the prediction that a task reads from a completion.

    Raises:
        PluginError: the task's parser failed or returned something other than text.
    """
    with guarded_batch() as guard:
        return _parse(task, completion, example_id, guard)


def _parse(task: Task, completion: str, example_id: str, guard: Guard) -> str:
    with guard.call(f'{task.label}: its parser failed on example "{example_id}"'):
        prediction = task.output.read(completion)
    if not isinstance(prediction, str):
        raise PluginError(
            f'{task.label}: its parser returned {type(prediction).__name__} for example "{example_id}", expected text'
        )
    return "" if is_blank(prediction) else as_utf8(prediction)


def stated_language(task: Task, language: str | None) -> str | None:
    """Return the language of an example's references, if the example or its task states one."""
    return language if states_language(language) else task.language
