"""The one renderer: task, example and tokenizer to the token ids that a model reads, in inference and training.

A chat model gets its own chat template, once; a base model the plain form: system part, examples, and the cue
that the answer follows. Text from data never becomes a control token: wherever such text spells one, it is
tokenized in two pieces.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, cast

from lmtasks.errors import PromptError
from lmtasks.task import Example, Prompt, Task

NONCHARACTERS = tuple(chr(code) for code in range(0xFDD0, 0xFDF0))
"""Code points that Unicode keeps for internal use: one of them marks where text is to be broken."""
MAX_CUTS = 20

OnOverlong = Literal["error", "skip", "cut"]


class Tokenizer(Protocol):
    """What the renderer needs of a tokenizer; those of transformers have it."""

    chat_template: str | None

    @property
    def added_tokens_decoder(self) -> Mapping[int, object]:
        """The tokens beside the trained vocabulary, by id; each has `content` and `special`."""
        ...

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> object:
        """Return the conversation as text, with control tokens spelled out."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return token ids; control tokens that the text spells become control tokens."""
        ...

    def decode(self, token_ids: list[int]) -> str:
        """Return the text of token ids, control tokens spelled out."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPrompt:
    """What a model reads for one example."""

    token_ids: tuple[int, ...]
    text: str
    """The same as text, control tokens spelled out; for people."""
    cut: Mapping[str, int] = field(default_factory=dict)
    """Characters that each field lost so that the prompt fits."""

    @property
    def sha256(self) -> str:
        """The hash of the token ids, by which a finished sample is known again."""
        return hashlib.sha256(",".join(map(str, self.token_ids)).encode()).hexdigest()


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
    ) -> None:
        """Choose the prompt by name and the examples it shows.

        Args:
            task: whose fields and prompts are used.
            tokenizer: of the model that will read the prompts; it has a chat template or not.
            prompt: the prompt's name in the task; None: its first.
            fewshot: examples with an answer, shown in this order before the one that is asked.
        """
        self.task = task
        self.name = prompt or next(iter(task.prompts))
        self.prompt: Prompt = task.prompts[self.name]
        self.fewshot = tuple(fewshot)
        self.chat = tokenizer.chat_template is not None
        self._tokenizer = tokenizer
        self._control = _control_tokens(tokenizer)
        # A chat template writes its own first token.
        self._prefix = [] if self.chat else _first_tokens(tokenizer)

    @property
    def stop(self) -> tuple[str, ...]:
        """What ends an answer beside the model's own end tokens: the plain form's separator."""
        return () if self.chat else (self.prompt.separator.rstrip() or self.prompt.separator,)

    def render(self, example: Example) -> RenderedPrompt:
        """Return the prompt of an example, however long.

        Raises:
            PromptError: a prompt function or chat template failed; names task and example.
        """
        marker = _unused_marker(example, *self.fewshot)
        text = self._chat_text(example, marker) if self.chat else self._plain_text(example, marker)
        ids = list(self._prefix)
        for piece in text.split(marker):
            ids.extend(self._tokenizer.encode(piece, add_special_tokens=False))
        return RenderedPrompt(token_ids=tuple(ids), text=text.replace(marker, ""))

    def render_within(self, example: Example, max_tokens: int, *, on_overlong: OnOverlong) -> RenderedPrompt:
        """Return the prompt of an example if it has at most `max_tokens`, or cut it to that.

        With "cut", the fields that the task allows to be cut lose their end, the longest first.

        Raises:
            OverlongPromptError: it is longer and may not be cut, or is longer still without those fields.
            PromptError: as for `render`.
        """
        rendered = self.render(example)
        if len(rendered.token_ids) <= max_tokens:
            return rendered
        where = f'task "{self.task.name}", example "{example.id}"'
        length = f"the prompt has {len(rendered.token_ids)} tokens, and the model has room for {max_tokens}"
        if on_overlong != "cut":
            raise OverlongPromptError(f"{where}: {length}")
        original, cut = example.inputs, example
        for _ in range(MAX_CUTS):
            cuttable = [name for name, field in self.task.fields.items() if field.cut and cut.inputs.get(name)]
            if not cuttable:
                break
            name = max(cuttable, key=lambda name: len(cut.inputs[name]))
            text = cut.inputs[name]
            excess = len(rendered.token_ids) - max_tokens
            tokens = len(self._tokenizer.encode(text, add_special_tokens=False))
            # Tokens are not of equal length, so this converges in a few rounds and not in one.
            keep = max(0, len(text) - max(1, -(-excess * len(text) // max(tokens, 1))))
            cut = replace(cut, inputs={**cut.inputs, name: _shorten(text, keep)})
            rendered = self.render(cut)
            if len(rendered.token_ids) <= max_tokens:
                lost = {key: len(original[key]) - len(cut.inputs[key]) for key in original}
                return replace(rendered, cut={key: count for key, count in lost.items() if count})
        raise OverlongPromptError(f"{where}: {length}, even with all that may be cut taken away")

    def _chat_text(self, example: Example, marker: str) -> str:
        turns: list[tuple[str, str]] = []
        for shown in self.fewshot:
            turns += [("user", self._fill("user", shown)), ("assistant", shown.answer or "")]
        turns.append(("user", self._fill("user", example)))
        system = self._fill("system", example)
        messages = [{"role": role, "content": self._broken(text, marker)} for role, text in turns]
        if not system:
            return self._apply_template(messages, example)
        system = self._broken(system, marker)
        try:
            return self._apply_template([{"role": "system", "content": system}, *messages], example)
        except PromptError:
            # Templates such as Gemma's know no system role and raise; the first user turn then carries it.
            first = {"role": "user", "content": f"{system}\n\n{messages[0]['content']}"}
            return self._apply_template([first, *messages[1:]], example)

    def _apply_template(self, messages: list[dict[str, str]], example: Example) -> str:
        import jinja2

        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except jinja2.TemplateError as error:
            raise PromptError(
                f'task "{self.task.name}", example "{example.id}": the model\'s chat template failed: {error}'
            ) from error
        return cast(str, text)

    def _plain_text(self, example: Example, marker: str) -> str:
        cue = self.prompt.cue
        blocks = []
        for shown in (*self.fewshot, example):
            block = self._fill("user", shown)
            if cue:
                block += f"\n{cue}"
            if shown is not example:
                block += f"{' ' if cue else chr(10)}{shown.answer}"
            elif not cue:
                block += "\n"
            blocks.append(block)
        system = self._fill("system", example)
        text = self.prompt.separator.join([system, *blocks] if system else blocks)
        return self._broken(text, marker)

    def _fill(self, part: Literal["system", "user"], example: Example) -> str:
        try:
            return self.prompt.fill(part, example.inputs)
        except Exception as error:
            raise PromptError(
                f'task "{self.task.name}", example "{example.id}": the {part} part of prompt "{self.name}" failed:'
                f" {type(error).__name__}: {error}"
            ) from error

    def _broken(self, text: str, marker: str) -> str:
        """Put the marker behind the first character of everything in the text that spells a control token."""
        if self._control is None:
            return text
        return self._control.sub(lambda match: match[0][0] + marker + match[0][1:], text)


def _control_tokens(tokenizer: Tokenizer) -> re.Pattern[str] | None:
    """Return a pattern of the strings that the tokenizer would turn into control tokens.

    Those are its special tokens and whatever else of its added tokens the chat template writes (Qwen's
    "<think>"). Others are ordinary vocabulary, such as Gemma's runs of spaces and HTML tags.
    """
    template = tokenizer.chat_template or ""
    strings = []
    for token in tokenizer.added_tokens_decoder.values():
        content, special = str(getattr(token, "content", "")), bool(getattr(token, "special", False))
        if len(content) > 1 and not content.isspace() and (special or content in template):
            strings.append(re.escape(content))
    return re.compile("|".join(sorted(strings, key=len, reverse=True))) if strings else None


def _first_tokens(tokenizer: Tokenizer) -> list[int]:
    """Return what the tokenizer puts before every text (BOS, or nothing)."""
    bare = tokenizer.encode("a", add_special_tokens=False)
    full = tokenizer.encode("a", add_special_tokens=True)
    start = next(at for at in range(len(full)) if full[at : at + len(bare)] == bare)
    return full[:start]


def _unused_marker(*examples: Example) -> str:
    texts = [text for example in examples for text in (*example.inputs.values(), example.answer or "")]
    for marker in NONCHARACTERS:
        if not any(marker in text for text in texts):
            return marker
    raise PromptError(f'example "{examples[0].id}": holds all of Unicode\'s noncharacters; this is no text')


def _shorten(text: str, length: int) -> str:
    """Return the beginning of a text, up to the last space if one is near the end."""
    kept = text[:length]
    space = max(kept.rfind(" "), kept.rfind("\n"))
    return kept[:space].rstrip() if space > length * 0.9 else kept.rstrip()
