"""The one renderer: task, example and tokenizer to the token ids that a model reads, in inference and training.

A chat model gets its own chat template, once; a base model the plain form: system part, examples, and the cue
that the answer follows. Text from data never becomes a control token: wherever such text spells one, it is
tokenized in two pieces.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Literal

from lmtasks.errors import PromptError
from lmtasks.isolation import guarded_call
from lmtasks.prompts.chat_template import ChatTemplate, Tokenizer, chat_template_of
from lmtasks.prompts.control_tokens import ControlTokens
from lmtasks.reasoning import MARKERS, ReasoningParser, closing_of, closings_in, opened_by
from lmtasks.task import Example, Prompt, Task
from lmtasks.text_utils import as_utf8

log = logging.getLogger("lmtasks.prompts")
NONCHARACTERS = tuple(chr(code) for code in range(0xFDD0, 0xFDF0))
"""Code points that Unicode keeps for internal use: one of them marks where text is to be broken."""

OnOverlong = Literal["error", "skip", "cut"]
_ANSWER = "lmtasks"
"""An answer by which the text around answers is found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPrompt:
    """What a model reads for one example."""

    token_ids: array[int]
    """As machine integers: a large data set has all its prompts in memory at once."""
    cut: Mapping[str, int] = field(default_factory=dict)
    """Characters that each field lost so that the prompt fits."""
    reasoning: ReasoningParser = ReasoningParser()
    """Divides what is written behind this prompt into reasoning and answer."""
    answer_start: array[int] = field(default_factory=lambda: array("i"))
    """Token ids with which an answer without reasoning begins: the markers that end reasoning, or none."""

    @property
    def sha256(self) -> str:
        """The hash of the token ids, by which a finished sample is known again."""
        return hashlib.sha256(",".join(map(str, self.token_ids)).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPair:
    """What a model reads and learns to write for one example."""

    prompt: RenderedPrompt
    """Exactly what inference renders."""
    answer_ids: array[int]
    """The answer and its end token."""


class OverlongPromptError(PromptError):
    """A prompt and the room for its answer exceed the model's context."""


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
        """Choose the prompt by name, the examples it shows, and the settings of the chat template.

        Args:
            task: whose fields and prompts are used.
            tokenizer: of the model that will read the prompts; it has a chat template or not.
            prompt: the prompt's name in the task; None: its first.
            fewshot: examples with an answer, shown in this order before the one that is asked.
            template_kwargs: values of the chat template's variables; thinking is off where it has a switch for it.
            template_defaults: values that hold where the chat template knows them and `template_kwargs` says nothing.
            template_date: what the chat template takes for today, if it asks; None: today.

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
        self._guard = ControlTokens(tokenizer)
        # A chat template writes its own first token.
        self._prefix = [] if self.chat else _first_tokens(tokenizer)
        added = [str(getattr(token, "content", "")) for token in tokenizer.added_tokens_decoder.values()]
        self._closings = closings_in((self.template and self.template.source) or "", added)
        self._answer_start = _answer_start(tokenizer, self.template)
        self._warned = False

    @property
    def chat(self) -> bool:
        """Whether prompts have the form of a chat."""
        return self.template is not None

    def on(self, day: date) -> Renderer:
        """Return this renderer with another date for the chat template to tell."""
        other = copy.copy(self)
        other.template = self.template and self.template.on(day)
        return other

    @property
    def stop(self) -> tuple[str, ...]:
        """What ends an answer beside the model's own end tokens: the plain form's separator."""
        return () if self.chat else (self.prompt.example_separator.rstrip() or self.prompt.example_separator,)

    def fingerprint(self) -> str | None:
        """Return a hash of the prompt as such, by which an adapter knows it again.

        Every field is filled with its own name; None: a function of the prompt does not take such inputs.
        """
        try:
            return self.render(Example(id="fingerprint", inputs={name: name for name in self.task.fields})).sha256
        except PromptError:
            return None

    def render(self, example: Example) -> RenderedPrompt:
        """Return the prompt of an example, however long.

        Raises:
            PromptError: a prompt function or chat template failed, or a control token in the data cannot be
                broken; names task and example.
        """
        system = self._fill("system", example)
        turns = [(self._fill("user", shown), shown.answer or "") for shown in self.fewshot]
        asked = self._fill("user", example)
        try:
            marker = _unused_marker([system, asked, *(text for turn in turns for text in turn)])
            reasoning, answer_start = ReasoningParser(closings=self._closings), ""
            if self.chat:
                text = self._chat_text(system, turns, asked, marker)
                reasoning, answer_start = self._reasoning_behind(text)
            else:
                text = self._guard.broken(self._plain_text(system, turns, asked), marker)
        except PromptError as error:
            raise PromptError(f'task "{self.task.name}", example "{example.id}": {error}') from error.__cause__
        ids = array("i", self._prefix)
        for piece in text.split(marker):
            ids.extend(self._tokenizer.encode(piece, add_special_tokens=False))
        start = array("i", self._tokenizer.encode(answer_start, add_special_tokens=False) if answer_start else ())
        return RenderedPrompt(token_ids=ids, reasoning=reasoning, answer_start=start)

    def _reasoning_behind(self, prompt: str) -> tuple[ReasoningParser, str]:
        """Return how completions of a rendered prompt divide, and what an answer without reasoning begins with."""
        source = (self.template and self.template.source) or ""
        if opened := opened_by(prompt, source):
            return ReasoningParser(opened, self._closings), closing_of(opened)
        if any(prompt.rstrip().endswith(closing) for closing in self._closings):
            return ReasoningParser(), ""  # the template has ended the reasoning itself
        return ReasoningParser(closings=self._closings), self._answer_start

    def render_answer(self, text: str) -> array[int]:
        """Return the token ids of a text as the answer to a prompt of this renderer, without an end token.

        They stand behind the `answer_start` of the prompt.

        Raises:
            PromptError: a control token in the text cannot be broken.
        """
        marker = _unused_marker([text])
        # What a base model writes behind its cue begins with a space, as in the examples that the prompt shows.
        lead = " " if self.prompt.answer_prefix and not self.chat else ""
        first, *rest = self._guard.broken(lead + text, marker).split(marker)
        ids = array("i", self._encode_behind(first))
        for piece in rest:
            ids.extend(self._tokenizer.encode(piece, add_special_tokens=False))
        return ids

    def render_pair(
        self, example: Example, max_tokens: int | None, end_id: int, *, on_overlong: OnOverlong
    ) -> RenderedPair:
        """Return the prompt of an example with the answer that is to be learned.

        Together they have at most `max_tokens` (None: no limit); what is too long loses text of its prompt, as in
        `render_within`, and never of its answer.

        Args:
            example: has an answer, or the task says what is written where there is none.
            max_tokens: of prompt and answer together.
            end_id: the token that ends the answer.
            on_overlong: as in `render_within`.

        Raises:
            OverlongPromptError: the pair is longer, and may not be cut or is longer still.
            PromptError: as for `render`.
        """
        text = (example.answer or "").strip() or self.task.output.no_answer or ""
        answer_ids = self.render_answer(text) if text else array("i")
        answer_ids.append(end_id)
        room = None if max_tokens is None else max(0, max_tokens - len(answer_ids))
        try:
            prompt = self.render_within(example, room, on_overlong=on_overlong, answered=True)
        except OverlongPromptError as error:
            raise OverlongPromptError(f"{error} of {max_tokens} beside its answer of {len(answer_ids)}") from None
        return RenderedPair(prompt=prompt, answer_ids=prompt.answer_start + answer_ids)

    def _encode_behind(self, text: str) -> list[int]:
        """Return the token ids of a text that follows another: some tokenizers put a space before a first word."""
        before = self._tokenizer.encode("\n", add_special_tokens=False)
        both = self._tokenizer.encode("\n" + text, add_special_tokens=False)
        if both[: len(before)] == before:
            return both[len(before) :]
        return self._tokenizer.encode(text, add_special_tokens=False)

    def render_within(
        self, example: Example, max_tokens: int | None, *, on_overlong: OnOverlong, answered: bool = False
    ) -> RenderedPrompt:
        """Return the prompt of an example if it has at most `max_tokens` (None: no limit), or cut it to that.

        With "cut", the fields that the task allows to be cut lose their end, the longest first, until the prompt
        fits; none is cut away whole. With `answered`, an answer that is given follows, and `answer_start` counts too.

        Raises:
            OverlongPromptError: it is longer and may not be cut, or is longer still without those fields.
            PromptError: as for `render`.
        """
        rendered = self.render(example)
        if max_tokens is None:
            return rendered
        if answered:
            max_tokens = max(0, max_tokens - len(rendered.answer_start))
        if len(rendered.token_ids) <= max_tokens:
            return rendered
        length = (
            f'task "{self.task.name}", example "{example.id}": the prompt has {len(rendered.token_ids)} tokens,'
            f" and the model has room for {max_tokens}"
        )
        if on_overlong != "cut":
            raise OverlongPromptError(length)
        cuttable = {name: text for name, text in example.inputs.items() if self.task.fields[name].truncatable and text}
        # No field keeps more characters than a cap; the largest cap that fits is found by bisection. The number
        # of tokens is no smooth function of the number of characters, so what is returned was itself rendered.
        fits: RenderedPrompt | None = None
        low, high = 1, max(map(len, cuttable.values()), default=0)
        while low <= high:
            cap = (low + high) // 2
            kept = {name: _shorten(text, cap) for name, text in cuttable.items()}
            rendered = self.render(replace(example, inputs={**example.inputs, **kept}))
            if len(rendered.token_ids) <= max_tokens:
                lost = {name: len(text) - len(kept[name]) for name, text in cuttable.items()}
                fits = replace(rendered, cut={name: count for name, count in lost.items() if count})
                low = cap + 1
            else:
                high = cap - 1
        if fits is None:
            raise OverlongPromptError(f"{length}, even with all that may be cut taken away")
        return fits

    def _chat_text(self, system: str, turns: Sequence[tuple[str, str]], asked: str, marker: str) -> str:
        contents = [text for turn in turns for text in turn] + [asked]
        messages = [
            {"role": "assistant" if number % 2 else "user", "content": self._guard.broken(text, marker)}
            for number, text in enumerate(contents)
        ]
        if not system:
            return self._complete(self._apply_template(messages), messages)
        system = self._guard.broken(system, marker)
        try:
            text = self._apply_template([{"role": "system", "content": system}, *messages])
        except PromptError:
            text = ""
        # Templates such as Gemma's know no system role: they raise, others drop it. The first turn then carries it.
        if system in text:
            return self._complete(text, messages)
        first = {"role": "user", "content": f"{system}\n\n{messages[0]['content']}"}
        return self._complete(self._apply_template([first, *messages[1:]]), messages)

    def _complete(self, text: str, messages: Sequence[dict[str, str]]) -> str:
        """Return a rendered chat; warn once if the template has left out what one of its messages says."""
        left_out = next((message["role"] for message in messages if message["content"] not in text), None)
        if left_out and not self._warned:
            self._warned = True
            log.warning(
                "the model's chat template leaves out or changes what the %s says; `lmtasks show` shows the prompt",
                left_out,
            )
        return text

    def _apply_template(self, messages: list[dict[str, str]]) -> str:
        if self.template is None:
            raise TypeError("a base model has no chat template")
        return self.template.render(self._tokenizer, messages, add_generation_prompt=True)

    def _plain_text(self, system: str, turns: Sequence[tuple[str, str]], asked: str) -> str:
        answer_prefix = self.prompt.answer_prefix
        blocks = [
            f"{user}\n{answer_prefix} {answer}" if answer_prefix else f"{user}\n{answer}" for user, answer in turns
        ]
        blocks.append(f"{asked}\n{answer_prefix}")
        return self.prompt.example_separator.join([system, *blocks] if system else blocks)

    def _fill(self, part: Literal["system", "user"], example: Example) -> str:
        said = f'{self.task.label}, example "{example.id}": the {part} part of prompt "{self.name}" failed'
        with guarded_call(said, PromptError):
            return as_utf8(self.prompt.fill(part, self.task.template_values(example.inputs)))


def _answer_start(tokenizer: Tokenizer, template: ChatTemplate | None) -> str:
    """Return the markers of reasoning that the template itself writes before an answer, where a prompt has none."""
    if template is None:
        return ""
    asked = [{"role": "user", "content": "?"}]
    answered = [*asked, {"role": "assistant", "content": _ANSWER}]
    try:
        prompt = template.render(tokenizer, asked, add_generation_prompt=True)
        conversation = template.render(tokenizer, answered, add_generation_prompt=False)
    except PromptError:
        return ""  # the template refuses this conversation; the prompts of the task may be fine
    before = conversation.partition(_ANSWER)[0]
    start = before.removeprefix(prompt) if before.startswith(prompt) else ""
    return start if any(marker in start for marker in MARKERS) else ""


def _first_tokens(tokenizer: Tokenizer) -> list[int]:
    """Return what the tokenizer puts before every text (BOS, or nothing)."""
    bare = tokenizer.encode("a", add_special_tokens=False)
    full = tokenizer.encode("a", add_special_tokens=True)
    start = next(at for at in range(len(full)) if full[at : at + len(bare)] == bare)
    return full[:start]


def _unused_marker(texts: Sequence[str]) -> str:
    for marker in NONCHARACTERS:
        if not any(marker in text for text in texts):
            return marker
    raise PromptError("the data holds all of Unicode's noncharacters; this is no text")


def _shorten(text: str, length: int) -> str:
    """Return the beginning of a text, up to the last space if one is near the end; never nothing."""
    kept = text[:length]
    space = max(kept.rfind(" "), kept.rfind("\n")) if length < len(text) else -1
    return kept[:space].rstrip() if space > length * 0.9 else kept.rstrip() or kept
