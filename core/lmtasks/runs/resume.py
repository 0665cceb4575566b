"""Samples of an unfinished run, reused by the run that resumes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lmtasks.errors import RunError, option
from lmtasks.prompts import RenderedPrompt
from lmtasks.runs.plan import Plan
from lmtasks.runs.sample_file import SAMPLES, numbered_samples, rewrite_samples, truncate_partial_line
from lmtasks.runs.samples import new_sample, with_predictions
from lmtasks.task import Sample


def reuse_samples(plan: Plan, prompts: Sequence[RenderedPrompt | None], path: Path) -> set[str]:
    """Check and keep the samples in a run folder, and return their ids.

    Their completions are parsed again: the parser may have interrupted the run, and was corrected since. The folder's
    key says that the run began with the same data and prompts, so a sample of others was edited. It is refused, not
    generated again: the rest of the file is then in doubt too, and only its owner knows what was done to it.

    Args:
        plan: the run's plan.
        prompts: rendered, in the order of the examples; None: the example is skipped.
        path: the run folder.

    Raises:
        RunError: a line is damaged, or is not a sample of the plan's example of that index.
    """
    truncate_partial_line(path)
    try:
        lines = numbered_samples(path, count=len(prompts))
    except RunError as error:
        raise RunError(f"{error}; {_remedy()}") from error
    for number, sample in lines:
        if name := _edited_field(plan, prompts[sample.index], sample):
            raise RunError(
                f'{path / SAMPLES}, line {number}: the {name} of sample "{sample.id}" is not that of example'
                f" {sample.index} of the data: the file was edited; {_remedy()}"
            )
    samples = [sample for _, sample in lines]
    parsed = _parse_again(plan, samples)
    if parsed != samples:
        rewrite_samples(path, parsed)
    return {sample.id for sample in samples}


def _remedy() -> str:
    return (
        "remove that line to run its example again, or remove the folder, or choose another with"
        f" {option('output_dir')}"
    )


def _edited_field(plan: Plan, prompt: RenderedPrompt | None, sample: Sample) -> str | None:
    """Return the first field of a sample that does not follow from the plan; None: all do."""
    example = plan.dataset.examples[sample.index]
    measured = len(example.references) if prompt and plan.options.loglikelihood else 0
    expected = {
        "id": sample.id == example.id,
        "inputs": dict(sample.inputs) == dict(example.inputs),
        "references": sample.references == example.references,
        "finish_reason": sample.finish_reason in (("stop", "length") if prompt else ("skipped",)),
        "prompt_sha256": sample.prompt_sha256 == (prompt.sha256 if prompt else ""),
        "prompt_tokens": sample.prompt_tokens == (len(prompt.token_ids) if prompt else 0),
        "truncated": dict(sample.truncated) == (dict(prompt.truncated) if prompt else {}),
        "loglikelihoods": len(sample.loglikelihoods) == measured,
    }
    return next((name for name, same in expected.items() if not same), None)


def _parse_again(plan: Plan, samples: Sequence[Sample]) -> list[Sample]:
    """Return samples whose completions are parsed by the task as it is now."""
    fresh = [new_sample(plan.task, sample.index, plan.dataset.examples[sample.index]) for sample in samples]
    completed = [
        replace(sample, language=new.language, meta=new.meta)
        for sample, new in zip(samples, fresh, strict=True)
        if sample.finish_reason != "skipped"
    ]
    parsed = iter(with_predictions(plan.task, completed))
    return [
        new if sample.finish_reason == "skipped" else next(parsed) for sample, new in zip(samples, fresh, strict=True)
    ]
