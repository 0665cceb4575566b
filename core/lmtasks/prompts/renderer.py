"""The one renderer: task, example and tokenizer to the token ids that a model reads, in inference and training.

A chat model gets its own chat template, once; a base model the plain form: system part, few-shot examples, and the
answer prefix that the answer follows. Text from data never becomes a control token: wherever such text spells one, it
is tokenized in two pieces.
"""

from __future__ import annotations

import copy
import logging
from array import array
from collections.abc import Iterator, Mapping, Sequence
from datetime import date

from lmtasks.errors import PromptError
from lmtasks.prompts.chat_template import Tokenizer, answer_start, chat_template_of
from lmtasks.prompts.control_tokens import ControlTokens
from lmtasks.prompts.filling import fill_prompt
from lmtasks.prompts.rendered import OverlongPromptError, RenderedPair, RenderedPrompt
from lmtasks.prompts.truncation import OnOverlong, PromptLimit, fit_prompts
from lmtasks.reasoning import ReasoningParser, closing_of, closings_in, opened_by
from lmtasks.task import Example, Prompt, Task

log = logging.getLogger("lmtasks.prompts")
NONCHARACTERS = tuple(chr(code) for code in range(0xFDD0, 0xFDF0))
"""Code points that Unicode reserves for internal use: one of them marks where text is split before tokenization."""
BATCH_SIZE = 256
"""Examples rendered at once: a prompt function's code shares one snapshot of the process state for all of them."""


class Renderer:
    """Renders the examples of one task for one tokenizer."""

    def __init__(
        self,
        task: Task,
        tokenizer: Tokenizer,
        *,
        prompt: str | None = None,
        fewshot: Sequence[Example] = (),
        template_kwargs: Mapping[str, object] | None = None,
        template_defaults: Mapping[str, object] | None = None,
        template_date: date | None = None,
    ) -> None:
        """Create a renderer for one prompt of a task and one tokenizer.

        Args:
            task: the task whose fields and prompts are used.
            tokenizer: the tokenizer of the model that will read the prompts, with or without a chat template.
            prompt: the prompt's name in the task; None: its first.
            fewshot: examples with an answer, shown in this order before the example to answer.
            template_kwargs: values of the chat template's variables; thinking is off if the template has a switch.
            template_defaults: values for variables of the chat template that `template_kwargs` does not set.
            template_date: the date that the chat template takes for today, if it asks; None: today.

        Raises:
            UsageError: the chat template has no such variable.
        """
        self.task = task
        self.name = prompt or next(iter(task.prompts))
        self.prompt: Prompt = task.prompts[self.name]
        self.fewshot = tuple(fewshot)
        self.template = chat_template_of(
            tokenizer, template_kwargs, defaults=template_defaults or {}, day=template_date
        )
        self._tokenizer = tokenizer
        self._control_tokens = ControlTokens(tokenizer)
        # A chat template writes its own first token.
        self._prefix = [] if self.chat else _first_tokens(tokenizer)
        added = [str(getattr(token, "content", "")) for token in tokenizer.added_tokens_decoder.values()]
        self._closings = closings_in((self.template and self.template.source) or "", added)
        self._answer_start = answer_start(tokenizer, self.template)
        self._warned = False
        # Few-shot turns are the same in every prompt: they are rendered once.
        self._fewshot_messages: tuple[Mapping[str, str], ...] | None = None
        self._marked_fewshot: dict[str, list[dict[str, str]]] = {}

    @property
    def chat(self) -> bool:
        """Whether prompts are rendered by a chat template."""
        return self.template is not None

    def on(self, day: date) -> Renderer:
        """Return this renderer with another date for the chat template."""
        other = copy.copy(self)
        other.template = self.template and self.template.on(day)
        return other

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end an answer besides the model's own end tokens: the plain form's separator."""
        return () if self.chat else (self.prompt.example_separator.rstrip() or self.prompt.example_separator,)

    def fingerprint(self) -> str | None:
        """Return a hash of the prompt without data, to compare it with the prompt that an adapter was trained with.

        Every field is filled with its own name. None: a prompt function does not accept such inputs.
        """
        try:
            return self.render(Example(id="fingerprint", inputs={name: name for name in self.task.fields})).sha256
        except PromptError:
            return None

    def render(self, example: Example) -> RenderedPrompt:
        """Return the prompt of an example, however long.

        Raises:
            PromptError: a prompt function or chat template failed, or a control token in the data cannot be
                split; names task and example.
        """
        [prompt] = self._render_batch([example])
        return prompt

    def render_within(
        self, example: Example, max_tokens: int | None, *, on_overlong: OnOverlong, with_answer: bool = False
    ) -> RenderedPrompt:
        """Return the prompt of an example with at most `max_tokens` tokens (None: no limit); see `render_all`.

        Raises:
            OverlongPromptError: the prompt is longer.
            PromptError: as for `render`.
        """
        [prompt] = self.render_all([example], [PromptLimit(max_tokens, with_answer)], on_overlong=on_overlong)
        if isinstance(prompt, OverlongPromptError):
            raise prompt
        return prompt

    def render_all(
        self, examples: Sequence[Example], limits: Sequence[PromptLimit], *, on_overlong: OnOverlong
    ) -> Iterator[RenderedPrompt | OverlongPromptError]:
        """Yield for each example its prompt, or the error that says that it is too long.

        With "truncate", the fields that the task allows to be truncated lose their end, the longest first, until the
        prompt fits; no field is removed whole.

        Args:
            examples: any number; they are rendered in batches of `BATCH_SIZE`.
            limits: the limit of each example's prompt.
            on_overlong: whether to truncate; "error" and "skip" are the caller's to act on.

        Raises:
            PromptError: as for `render`.
        """
        truncate = on_overlong == "truncate"
        for start in range(0, len(examples), BATCH_SIZE):
            batch, batch_limits = examples[start : start + BATCH_SIZE], limits[start : start + BATCH_SIZE]
            yield from fit_prompts(self.task, batch, batch_limits, self._render_batch, truncate=truncate)

    def render_pair(
        self, example: Example, max_tokens: int | None, end_id: int, *, on_overlong: OnOverlong
    ) -> RenderedPair:
        """Return the prompt of an example with the answer to train on; see `render_pairs`.

        Raises:
            OverlongPromptError: the pair is longer.
            PromptError: as for `render`.
        """
        [pair] = self.render_pairs([example], max_tokens, end_id, on_overlong=on_overlong)
        if isinstance(pair, OverlongPromptError):
            raise pair
        return pair

    def render_pairs(
        self, examples: Sequence[Example], max_tokens: int | None, end_id: int, *, on_overlong: OnOverlong
    ) -> Iterator[RenderedPair | OverlongPromptError]:
        """Yield for each example its prompt with the answer to train on, or the error that says that it is too long.

        Only the prompt is truncated, as in `render_all`, never the answer.

        Args:
            examples: each has an answer, or the task says what is written where there is none.
            max_tokens: limit for prompt and answer together; None: no limit.
            end_id: the token that ends the answer.
            on_overlong: as in `render_all`.

        Raises:
            PromptError: as for `render`.
        """
        for start in range(0, len(examples), BATCH_SIZE):
            batch = examples[start : start + BATCH_SIZE]
            answers = [self._answer_ids(example, end_id) for example in batch]
            limits = [
                PromptLimit(None if max_tokens is None else max(0, max_tokens - len(answer)), with_answer=True)
                for answer in answers
            ]
            prompts = self.render_all(batch, limits, on_overlong=on_overlong)
            for prompt, answer in zip(prompts, answers, strict=True):
                if isinstance(prompt, OverlongPromptError):
                    yield OverlongPromptError(f"{prompt} of {max_tokens} beside its answer of {len(answer)}")
                else:
                    yield RenderedPair(prompt=prompt, answer_ids=prompt.answer_start + answer)

    def _answer_ids(self, example: Example, end_id: int) -> array[int]:
        """Return the token ids of an example's answer, the end token included."""
        text = (example.answer or "").strip() or self.task.output.no_answer or ""
        token_ids = self.render_answer(text) if text else array("i")
        token_ids.append(end_id)
        return token_ids

    def _render_batch(self, examples: Sequence[Example]) -> list[RenderedPrompt]:
        """Return the prompts of examples, however long."""
        # All plugin code runs first: what follows is core's own and needs no guard.
        systems = fill_prompt(self.task, self.name, "system", examples)
        users = fill_prompt(self.task, self.name, "user", examples)
        return [self._render_filled(*filled) for filled in zip(examples, systems, users, strict=True)]

    def _render_filled(self, example: Example, system: str, user: str) -> RenderedPrompt:
        """Return the prompt of an example whose system and user parts are filled."""
        messages = (
            *([{"role": "system", "content": system}] if system else []),
            *self._fewshot(),
            {"role": "user", "content": user},
        )
        try:
            marker = _unused_marker([message["content"] for message in messages])
            reasoning, start = ReasoningParser(closings=self._closings), ""
            if self.chat:
                text = self._chat_text(system, user, marker)
                reasoning, start = self._reasoning_after(text)
            else:
                text = self._control_tokens.insert_marker(self._plain_text(system, user), marker)
        except PromptError as error:
            raise PromptError(f'task "{self.task.name}", example "{example.id}": {error}') from error.__cause__
        token_ids = array("i", self._prefix)
        for piece in text.split(marker):
            token_ids.extend(self._tokenizer.encode(piece, add_special_tokens=False))
        start_ids = array("i", self._tokenizer.encode(start, add_special_tokens=False) if start else ())
        return RenderedPrompt(token_ids=token_ids, messages=messages, reasoning=reasoning, answer_start=start_ids)

    def _reasoning_after(self, prompt: str) -> tuple[ReasoningParser, str]:
        """Return the parser for completions of a rendered prompt, and what an answer without reasoning begins with."""
        source = (self.template and self.template.source) or ""
        if opened := opened_by(prompt, source):
            return ReasoningParser(opened, self._closings), closing_of(opened)
        if any(prompt.rstrip().endswith(closing) for closing in self._closings):
            return ReasoningParser(), ""  # the template itself has ended the reasoning
        return ReasoningParser(closings=self._closings), self._answer_start

    def render_answer(self, text: str) -> array[int]:
        """Return the token ids of a text as the answer to a prompt of this renderer, without an end token.

        They follow the `answer_start` of the prompt.

        Raises:
            PromptError: a control token in the text cannot be split.
        """
        marker = _unused_marker([text])
        # A base model's answer begins with a space after the answer prefix, as in few-shot examples.
        space = " " if self.prompt.answer_prefix and not self.chat else ""
        first, *rest = self._control_tokens.insert_marker(space + text, marker).split(marker)
        ids = array("i", self._encode_continuation(first))
        for piece in rest:
            ids.extend(self._tokenizer.encode(piece, add_special_tokens=False))
        return ids

    def _encode_continuation(self, text: str) -> list[int]:
        """Return the token ids of a text that continues another: some tokenizers add a space before a first word."""
        before = self._tokenizer.encode("\n", add_special_tokens=False)
        both = self._tokenizer.encode("\n" + text, add_special_tokens=False)
        if both[: len(before)] == before:
            return both[len(before) :]
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _chat_text(self, system: str, user: str, marker: str) -> str:
        user = self._control_tokens.insert_marker(user, marker)
        turns = [*self._mark_fewshot(marker), {"role": "user", "content": user}]
        if not system:
            return self._with_warning(self._apply_template(turns), turns)
        system = self._control_tokens.insert_marker(system, marker)
        try:
            text = self._apply_template([{"role": "system", "content": system}, *turns])
        except PromptError:
            text = ""
        # Templates such as Gemma's have no system role: some raise, others drop it. The first turn then carries it.
        if system in text:
            return self._with_warning(text, turns)
        first = {"role": "user", "content": f"{system}\n\n{turns[0]['content']}"}
        return self._with_warning(self._apply_template([first, *turns[1:]]), turns)

    def _with_warning(self, text: str, messages: Sequence[Mapping[str, str]]) -> str:
        """Return a rendered chat; warn once if the template has left out or changed one of its messages."""
        left_out = next((message["role"] for message in messages if message["content"] not in text), None)
        if left_out and not self._warned:
            self._warned = True
            log.warning(
                "the model's chat template leaves out or changes the %s message; `lmtasks show` shows the prompt",
                left_out,
            )
        return text

    def _apply_template(self, messages: list[dict[str, str]]) -> str:
        if self.template is None:
            raise TypeError("a base model has no chat template")
        return self.template.render(self._tokenizer, messages, add_generation_prompt=True)

    def _plain_text(self, system: str, user: str) -> str:
        prefix = self.prompt.answer_prefix
        contents = [message["content"] for message in self._fewshot()]
        blocks = [
            f"{shown}\n{prefix} {answer}" if prefix else f"{shown}\n{answer}"
            for shown, answer in zip(contents[::2], contents[1::2], strict=True)
        ]
        blocks.append(f"{user}\n{prefix}")
        return self.prompt.example_separator.join([system, *blocks] if system else blocks)

    def _fewshot(self) -> tuple[Mapping[str, str], ...]:
        """Return the few-shot examples as messages of user and assistant in turn."""
        if self._fewshot_messages is None:
            users = fill_prompt(self.task, self.name, "user", self.fewshot)
            answers = [example.answer or "" for example in self.fewshot]
            self._fewshot_messages = tuple(
                {"role": role, "content": text}
                for turn in zip(users, answers, strict=True)
                for role, text in zip(("user", "assistant"), turn, strict=True)
            )
        return self._fewshot_messages

    def _mark_fewshot(self, marker: str) -> list[dict[str, str]]:
        """Return the few-shot messages with the marker in every control token that they spell."""
        if marker not in self._marked_fewshot:
            self._marked_fewshot[marker] = [
                {**message, "content": self._control_tokens.insert_marker(message["content"], marker)}
                for message in self._fewshot()
            ]
        return self._marked_fewshot[marker]


def _first_tokens(tokenizer: Tokenizer) -> list[int]:
    """Return the token ids that the tokenizer puts before every text: BOS, or nothing."""
    bare = tokenizer.encode("a", add_special_tokens=False)
    full = tokenizer.encode("a", add_special_tokens=True)
    start = next(index for index in range(len(full)) if full[index : index + len(bare)] == bare)
    return full[:start]


def _unused_marker(texts: Sequence[str]) -> str:
    for marker in NONCHARACTERS:
        if not any(marker in text for text in texts):
            return marker
    raise PromptError("the data holds all of Unicode's noncharacters; this is no text")
