"""What an unfinished run has already answered, taken over by the run that continues it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lmtasks.errors import RunError, option
from lmtasks.prompts import RenderedPrompt
from lmtasks.runs.plan import Plan
from lmtasks.runs.sample_file import SAMPLES, numbered_samples, rewrite_samples, truncate_partial_line
from lmtasks.runs.samples import new_sample, with_prediction
from lmtasks.task import Sample


def _remedy() -> str:
    return (
        "remove that line to generate its example again, or remove the folder, or choose another with"
        f" {option('output_dir')}"
    )


def take_over(plan: Plan, prompts: Sequence[RenderedPrompt | None], path: Path) -> set[str]:
    """Take over the samples in a run folder, and return their ids.

    They are parsed again: what interrupted the run may have been the parser, mended since. The folder's key says that
    it was begun with the same data and prompts, so a sample of others was edited. It is refused, not answered again:
    the rest of the file is then in doubt too, and only its owner knows what was done to it.

    Args:
        plan: what the run is to do.
        prompts: of its examples; None: the example is skipped.
        path: the run folder.

    Raises:
        RunError: a line is damaged, or holds something else than the plan's example of that index.
    """
    truncate_partial_line(path)
    try:
        lines = numbered_samples(path, count=len(prompts))
    except RunError as error:
        raise RunError(f"{error}; {_remedy()}") from error
    for number, sample in lines:
        if name := _foreign_field(plan, prompts[sample.index], sample):
            raise RunError(
                f'{path / SAMPLES}, line {number}: the {name} of sample "{sample.id}" is not that of example'
                f" {sample.index} of the data, so the file was edited; {_remedy()}"
            )
    samples = [sample for _, sample in lines]
    ours = [_read_again(plan, sample) for sample in samples]
    if ours != samples:
        rewrite_samples(path, ours)
    return {sample.id for sample in samples}


def _foreign_field(plan: Plan, prompt: RenderedPrompt | None, sample: Sample) -> str | None:
    """Return the first field of a sample that does not follow from the plan; None: it is of this plan."""
    example = plan.dataset.examples[sample.index]
    measured = len(example.references) if prompt and plan.options.loglikelihood else 0
    expected = {
        "id": sample.id == example.id,
        "inputs": dict(sample.inputs) == dict(example.inputs),
        "references": sample.references == example.references,
        "finish": sample.finish in (("stop", "length") if prompt else ("skipped",)),
        "prompt_sha256": sample.prompt_sha256 == (prompt.sha256 if prompt else ""),
        "prompt_tokens": sample.prompt_tokens == (len(prompt.token_ids) if prompt else 0),
        "cut": dict(sample.cut) == (dict(prompt.cut) if prompt else {}),
        "loglikelihoods": len(sample.loglikelihoods) == measured,
    }
    return next((name for name, same in expected.items() if not same), None)


def _read_again(plan: Plan, sample: Sample) -> Sample:
    """Return a sample as its task reads it now."""
    fresh = new_sample(plan.task, sample.index, plan.dataset.examples[sample.index])
    if sample.finish == "skipped":
        return fresh
    return with_prediction(plan.task, replace(sample, language=fresh.language, meta=fresh.meta))
