"""What a run is to do, and the prompts that it asks."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lmtasks.backends import LanguageModel
from lmtasks.data import Dataset, FewShot
from lmtasks.errors import PromptError, option
from lmtasks.languages import primary
from lmtasks.metrics import language_of
from lmtasks.models.adapter_files import Adapter
from lmtasks.plugins import DiscoveredPlugin
from lmtasks.progress import OnProgress
from lmtasks.prompts import OverlongPromptError, RenderedPrompt, Renderer
from lmtasks.runs.adapters import AdapterChoice
from lmtasks.runs.likelihood import reference_texts
from lmtasks.runs.options import RunOptions
from lmtasks.runs.samples import stated_language
from lmtasks.task import Generation, Metric, Task

log = logging.getLogger("lmtasks.runs")
LOOKED_AT = 500
"""Examples that are looked at to warn of a language that the model does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run with everything that can be checked before a model is loaded."""

    task: Task
    plugin: DiscoveredPlugin | None
    """Where the task comes from; None: it was handed over from Python."""
    dataset: Dataset
    fewshot: FewShot | None
    metrics: tuple[Metric, ...]
    options: RunOptions
    generation: Generation
    adapter: AdapterChoice | None = None


def with_stop_strings(generation: Generation, renderer: Renderer, adapter: Adapter | None) -> Generation:
    """Return a way to draw completions that also stops where the prompt's form ends an answer."""
    if adapter and adapter.record:
        return generation  # it has learned to end its answers, which may hold what separates examples
    return replace(generation, stop=tuple(dict.fromkeys((*generation.stop, *renderer.stop))))


def max_prompt_tokens(model: LanguageModel, generation: Generation) -> int | None:
    """Return how many tokens a prompt may have; None: as many as it likes.

    Raises:
        PromptError: the answer alone would fill the model's context.
    """
    context = model.info.context_length
    if context is None:
        return None
    if generation.max_new_tokens >= context:
        raise PromptError(
            f"max_new_tokens {generation.max_new_tokens} leaves no room for a prompt: {model.info.name} has a"
            f" context of {context} tokens"
        )
    return context - generation.max_new_tokens


def render_prompts(
    plan: Plan,
    renderer: Renderer,
    model: LanguageModel,
    generation: Generation,
    answers: Mapping[str, Sequence[int]],
    on_progress: OnProgress,
) -> list[RenderedPrompt | None]:
    """Render all prompts; None stands for one that is skipped."""
    room, context = max_prompt_tokens(model, generation), model.info.context_length
    prompts: list[RenderedPrompt | None] = []
    overlong: list[OverlongPromptError] = []
    for number, example in enumerate(plan.dataset.examples):
        if number and number % 1000 == 0:
            on_progress(f"rendering {plan.task.name}", number, len(plan.dataset.examples))
        # A reference whose likelihood is measured takes the place of an answer, and may be longer than one.
        texts = reference_texts(plan.task, example) if answers else ()
        longest = max((len(answers[text]) for text in texts), default=0)
        own_room = None if room is None or context is None else max(0, min(room, context - longest))
        try:
            prompt = renderer.render_within(
                example, own_room, on_overlong=plan.options.on_overlong, answered=bool(texts)
            )
            prompts.append(prompt)
        except OverlongPromptError as error:
            prompts.append(None)
            beside = ""
            if own_room != room:
                beside = f" of {context} beside a reference of {longest} tokens ({option('loglikelihood')})"
            overlong.append(OverlongPromptError(f"{error}{beside}"))
    if overlong and plan.options.on_overlong != "skip":
        ways = " or ".join(option("on_overlong", way) for way in ("cut", "skip") if way != plan.options.on_overlong)
        raise PromptError(
            f"{len(overlong)} of {len(prompts)} prompts are too long. The first: {overlong[0]}. Use"
            f" {ways}, fewer few-shot examples, or a model with a longer context"
        )
    return prompts


def warn_of_language(plan: Plan, model: LanguageModel, adapter: Adapter | None) -> None:
    """Say so where the references are in languages that the model does not write."""
    known = model.info.languages
    if not known or adapter:  # an adapter may have taught it another
        return
    # A look at some of them is enough for a warning.
    examples = plan.dataset.examples[:: max(1, len(plan.dataset.examples) // LOOKED_AT)]
    languages = Counter(
        primary(stated_language(plan.task, example.language) or language_of(example)) for example in examples
    )
    foreign = {language: count for language, count in languages.items() if language not in (*known, "und")}
    if foreign:
        listed = ", ".join(f"{count} in {language}" for language, count in sorted(foreign.items()))
        log.warning(
            "%s writes %s; of %d examples looked at, %s: expect nonsense there",
            model.info.name,
            ", ".join(known),
            len(examples),
            listed,
        )
