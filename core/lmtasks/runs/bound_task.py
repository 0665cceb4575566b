"""A task bound to a model: renders examples, makes requests and reads completions, for `run`, `ask` and `show`."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Protocol

from lmtasks.backends import LanguageModel, Request
from lmtasks.backends.base import OnText
from lmtasks.errors import PromptError, RunError, option
from lmtasks.models.adapter_files import Adapter
from lmtasks.models.info import ModelInfo
from lmtasks.progress import OnProgress, no_progress
from lmtasks.prompts import OverlongPromptError, PromptLimit, RenderedPrompt, Renderer
from lmtasks.prompts.chat_template import Tokenizer
from lmtasks.records.parts import ChatTemplateRecord
from lmtasks.records.run import ModelRunRecord
from lmtasks.runs.adapters import AdapterChoice, attach_for_run
from lmtasks.runs.folder import RECORD, read_record
from lmtasks.runs.likelihood import reference_texts
from lmtasks.runs.plan import TaskPlan
from lmtasks.runs.samples import parse_completion
from lmtasks.task import Example, SamplingParams, Task

log = logging.getLogger("lmtasks.runs")
KEY_DATE = date(2000, 1, 1)
"""The date that prompts are rendered with to compute a run's key, whatever the day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundTask:
    """A task with the model that answers it: prompt, few-shot examples, adapter and options are decided."""

    plan: TaskPlan
    model: LanguageModel
    renderer: Renderer
    adapter: Adapter | None
    """The adapter that answers; None: the base model does."""

    @property
    def task(self) -> Task:
        """The task."""
        return self.plan.task

    @property
    def generation(self) -> SamplingParams:
        """The generation settings, with the stop string of the plain prompt form."""
        generation = self.plan.generation
        if self.adapter and self.adapter.record:
            return generation  # it was trained to end its answers, which may hold the separator of examples
        return replace(generation, stop=tuple(dict.fromkeys((*generation.stop, *self.renderer.stop))))

    @property
    def max_prompt_tokens(self) -> int | None:
        """How many tokens a prompt may have; None: no limit.

        Raises:
            PromptError: the answer alone would fill the model's context.
        """
        info, max_new_tokens = self.model.info, self.plan.generation.max_new_tokens
        if info.context_length is None:
            return None
        if max_new_tokens >= info.context_length:
            raise PromptError(
                f"{option('max_new_tokens')} {max_new_tokens} leaves no room for a prompt: {info.name} has a context of"
                f" {info.context_length} tokens"
            )
        return info.context_length - max_new_tokens

    def with_date(self, day: date) -> BoundTask:
        """Return this task with another date for the chat template."""
        return replace(self, renderer=self.renderer.on(day))

    def render(self, example: Example) -> RenderedPrompt:
        """Return the prompt of an example, truncated if it is too long and the options allow that.

        Raises:
            OverlongPromptError: the prompt is too long for the model.
            PromptError: the prompt could not be rendered; names task and example.
        """
        return self.renderer.render_within(example, self.max_prompt_tokens, on_overlong=self.plan.options.on_overlong)

    def render_all(
        self,
        examples: Sequence[Example],
        *,
        answers: Mapping[str, Sequence[int]] | None = None,
        on_progress: OnProgress = no_progress,
    ) -> list[RenderedPrompt | None]:
        """Return the prompts of examples; None stands for an example that is skipped.

        Args:
            examples: any number.
            answers: token ids by text, where the likelihood of references is measured: their tokens must fit too.
            on_progress: called while prompts are rendered.

        Raises:
            PromptError: prompts are too long and may not be skipped, or could not be rendered.
        """
        on_overlong = self.plan.options.on_overlong
        longest = [self._longest_reference(example, answers) for example in examples]
        limits = [self._limit(tokens) for tokens in longest]
        prompts: list[RenderedPrompt | None] = []
        overlong: list[str] = []
        for number, prompt in enumerate(self.renderer.render_all(examples, limits, on_overlong=on_overlong)):
            if number and number % 1000 == 0:
                on_progress(f"rendering {self.task.name}", number, len(examples))
            prompts.append(None if isinstance(prompt, OverlongPromptError) else prompt)
            if isinstance(prompt, OverlongPromptError):
                note = ""
                if limits[number].max_tokens != self.max_prompt_tokens:
                    note = f" of {self.model.info.context_length} beside a reference of {longest[number]} tokens"
                    note += f" ({option('loglikelihood')})"
                overlong.append(f"{prompt}{note}")
        if overlong and on_overlong != "skip":
            values = " or ".join(option("on_overlong", value) for value in ("truncate", "skip") if value != on_overlong)
            raise PromptError(
                f"{len(overlong)} of {len(prompts)} prompts are too long. The first: {overlong[0]}. Use {values},"
                f" or fewer few-shot examples, or a model with a longer context"
            )
        return prompts

    def _longest_reference(self, example: Example, answers: Mapping[str, Sequence[int]] | None) -> int | None:
        """Return the tokens of the longest reference whose likelihood is measured; None: none is measured."""
        texts = reference_texts(self.task, example) if answers else ()
        return max((len(answers[text]) for text in texts), default=None) if answers else None

    def _limit(self, longest_reference: int | None) -> PromptLimit:
        # A reference whose likelihood is measured takes the place of an answer, and may be longer than one.
        max_tokens, context = self.max_prompt_tokens, self.model.info.context_length
        if max_tokens is None or context is None:
            return PromptLimit(None, with_answer=longest_reference is not None)
        if longest_reference is None:
            return PromptLimit(max_tokens)
        return PromptLimit(max(0, min(max_tokens, context - longest_reference)), with_answer=True)

    def request(self, example: Example, prompt: RenderedPrompt | None = None) -> Request:
        """Return the request for an example's completion.

        Args:
            example: the example; its id seeds the sampling.
            prompt: its rendered prompt; None: it is rendered.

        Raises:
            PromptError: as for `render`.
        """
        prompt = prompt or self.render(example)
        return Request(
            example.id,
            prompt.token_ids,
            self.generation,
            self.adapter.id if self.adapter else None,
            prompt.reasoning,
            messages=prompt.messages,
            inputs=example.inputs,
        )

    def parse(self, completion: str, example_id: str) -> str:
        """Return the prediction that the task reads from a completion.

        Raises:
            PluginError: the task's parser failed or returned no text.
        """
        return parse_completion(self.task, completion, example_id)

    def answer(self, example: Example, on_text: OnText | None = None) -> str:
        """Return the model's answer to an example, as the task parses it.

        Args:
            example: the example.
            on_text: called with the answer so far, each time it has grown. If the task has a parser of its own, it is
                called once, with the whole answer: such a parser may remove text that it let through before.

        Raises:
            PromptError: as for `render`.
            PluginError: as for `parse`.
        """
        prompt = self.render(example)
        for name, count in prompt.truncated.items():
            log.warning("the last %d characters of %s were removed to fit the model", count, name)
        stream = (lambda text: on_text(text.strip())) if on_text and self.task.output.is_verbatim else None
        request = replace(self.request(example, prompt), on_text=stream)
        [(_, completion)] = next(iter(self.model.generate([request], seed=self.plan.options.seed)))
        if completion.reasoning_tokens and not completion.text.strip():
            log.warning(
                "the model wrote %d tokens of reasoning and no answer; allow more with %s",
                completion.reasoning_tokens,
                option("max_new_tokens"),
            )
        answer = self.parse(completion.text, example.id)
        if on_text:
            on_text(answer)
        return answer


def bind_task(plan: TaskPlan, model: LanguageModel, *, attach: bool = True) -> BoundTask:
    """Return a task bound to a model.

    Args:
        plan: the task with its settings.
        model: the model that answers.
        attach: whether the plan's adapter is attached to the model; not needed to render alone.

    Raises:
        AdapterError: the adapter does not fit the model.
        UsageError: the chat template has no variable that the options name.
    """
    fewshot = plan.fewshot.examples if plan.fewshot else ()
    renderer = make_renderer(plan.task, model, plan.options, fewshot=fewshot, choice=plan.adapter)
    adapter = attach_for_run(plan.adapter, model, plan.task, renderer) if attach else None
    return BoundTask(plan=plan, model=model, renderer=renderer, adapter=adapter)


class TemplateOptions(Protocol):
    """The options that decide how a prompt is rendered."""

    @property
    def prompt(self) -> str | None:
        """The prompt's name."""
        ...

    @property
    def chat_template_kwargs(self) -> Mapping[str, object]:
        """Values of the chat template's variables."""
        ...

    @property
    def chat_template_date(self) -> str | None:
        """The date that the chat template takes for today."""
        ...


class RenderingModel(Protocol):
    """A loaded model whose prompts are rendered, for inference or training."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that prompts are rendered with."""
        ...

    @property
    def info(self) -> ModelInfo:
        """Name, weights and context length of the model."""
        ...


def make_renderer(
    task: Task,
    model: RenderingModel,
    options: TemplateOptions,
    *,
    fewshot: Sequence[Example] = (),
    choice: AdapterChoice | None = None,
) -> Renderer:
    """Return the renderer of a task for a model.

    Settings of the chat template that the options leave open are those that the adapter was trained with.

    Args:
        task: the task.
        model: the model that reads the prompts.
        options: the prompt's name and the settings of the chat template.
        fewshot: the examples that the prompt shows.
        choice: the adapter that will be used.

    Raises:
        UsageError: the chat template has no variable that the options name.
    """
    trained = _trained_template(choice, model)
    renderer = Renderer(
        task,
        model.tokenizer,
        prompt=options.prompt,
        fewshot=fewshot,
        template_kwargs=options.chat_template_kwargs,
        template_defaults=trained.kwargs if trained else None,
        template_date=stated_date(options, choice, model),
    )
    if options.chat_template_date and not (renderer.template and renderer.template.day):
        log.warning("the model's chat template uses no date, so %s has no effect", option("chat_template_date"))
    return renderer


def stated_date(options: TemplateOptions, choice: AdapterChoice | None, model: RenderingModel) -> date | None:
    """Return the date that the options or else the adapter's record state; None: neither does."""
    trained = _trained_template(choice, model)
    day = options.chat_template_date or (trained.date if trained else None)
    return date.fromisoformat(day) if day else None


def _trained_template(choice: AdapterChoice | None, model: RenderingModel) -> ChatTemplateRecord | None:
    """Return the settings of the chat template that the adapter was trained with; None: none are recorded."""
    if choice is None or choice.adapter.record is None or not choice.adapter.belongs_to(model.info):
        return None
    return choice.adapter.record.prompt.chat_template


def dated_key(key: str, day: str) -> str:
    """Return the key of a run whose prompts contain the date."""
    return hashlib.sha256(f"{key} on {day}".encode()).hexdigest()


def date_to_resume(output_dir: Path, key: str) -> date | None:
    """Return the date of the newest unfinished run that is the same but for the date; None: there is none.

    Args:
        output_dir: the folder that holds run folders.
        key: the run's key, from prompts that were rendered with `KEY_DATE`.
    """
    for file in sorted(output_dir.glob(f"*/{RECORD}"), reverse=True):
        try:
            record = read_record(file.parent)
        except RunError:
            continue  # not a run that this version could resume
        if not isinstance(record, ModelRunRecord) or record.status == "finished":
            continue
        template = record.prompt.chat_template
        if template and template.date and record.key == dated_key(key, template.date):
            return date.fromisoformat(template.date)
    return None
