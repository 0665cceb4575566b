"""Reasoning that a model writes before its answer: the markers of each model family, and the parser."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class ReasoningFormat:
    """The reasoning markers of a family of models."""

    opening: str
    """The marker that begins a block of reasoning."""
    closing: str
    """The marker that ends a block, as a chat template or a model writes it."""
    pattern: str = ""
    """A regular expression for the end of a block, if it varies; "": `closing` itself."""
    within: tuple[str, ...] = ()
    """More markers that occur within a block."""
    noise: str = ""
    """A regular expression for what is removed from the text of the reasoning."""

    @cached_property
    def end(self) -> re.Pattern[str]:
        """The pattern of the end of a block, including the white space before the answer."""
        return re.compile(f"(?:{self.pattern or re.escape(self.closing)})\\s*")

    @property
    def markers(self) -> tuple[str, ...]:
        """All markers of this format."""
        return (self.opening, self.closing, *self.within)


HARMONY = ReasoningFormat(
    "<|channel|>",
    "<|channel|>final<|message|>",
    # "<|channel|>final <|constrain|>json<|message|>" is another way to begin an answer.
    pattern=r"<\|channel\|>\s*final\b(?:(?!<\|message\|>).)*<\|message\|>",
    within=("<|message|>", "<|start|>", "<|end|>", "<|constrain|>"),
    noise=r"(?:<\|(?:message|start|end|constrain|channel)\|>\s*(?:(?:assistant|analysis|commentary)\b)?)+",
)
"""The format of gpt-oss, whose answer is a channel too."""
FORMATS = (
    ReasoningFormat("<think>", "</think>"),  # DeepSeek-R1, Qwen3, GLM, SmolLM3, MiniMax and many more
    ReasoningFormat("<thinking>", "</thinking>"),
    ReasoningFormat("<thought>", "</thought>"),  # EXAONE Deep
    ReasoningFormat("<reasoning>", "</reasoning>"),
    ReasoningFormat("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1, OpenThinker
    ReasoningFormat("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ReasoningFormat("<seed:think>", "</seed:think>"),  # Seed-OSS
    ReasoningFormat("[THINK]", "[/THINK]"),  # Magistral
    ReasoningFormat("◁think▷", "◁/think▷"),  # Kimi
    ReasoningFormat("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ReasoningFormat("<|channel>thought", "<channel|>"),  # Gemma 4
    HARMONY,
)
"""The known formats; vLLM and SGLang have a reasoning parser for each."""


@dataclass(frozen=True, slots=True)
class ParsedCompletion:
    """A completion, divided into reasoning and answer."""

    reasoning: str
    """The reasoning without its markers; "": there is none."""
    answer: str
    """The text after the reasoning; "": the reasoning has not ended."""
    start: int | None
    """The index in the text at which the answer begins; None: the reasoning has not ended."""


@dataclass(frozen=True, slots=True)
class ReasoningParser:
    """Divides the completion of one prompt into reasoning and answer.

    Only blocks at the beginning count as reasoning: an answer may quote the same markers.
    """

    opened: str = ""
    """The marker that the chat template wrote at the end of the prompt to open a block; "": none."""
    closings: tuple[str, ...] = ()
    """Markers that end reasoning even if nothing opened it: those of the model's template and vocabulary."""

    def parse(self, text: str) -> ParsedCompletion:
        """Return the reasoning and the answer of a complete completion."""
        parts, start = [], 0
        for block, end in _blocks(self.opened + text):
            parts.append(block)
            if end is None:
                return ParsedCompletion(_joined(parts), "", None)
            start = end
        if not parts:
            ends = [
                match for format in FORMATS if format.closing in self.closings and (match := format.end.search(text))
            ]
            if ends:
                first = min(ends, key=lambda match: match.start())
                parts, start = [text[: first.start()]], first.end()
        start = max(0, start - len(self.opened))
        return ParsedCompletion(_joined(parts), text[start:], start)

    def settled(self, text: str) -> ParsedCompletion | None:
        """Return a partial completion parsed; None: later text may still change where the answer begins."""
        parsed = self.parse(text)
        if parsed.start is None or may_open(parsed.answer) or (parsed.start == 0 and self.closings):
            return None
        return parsed


def may_open(text: str) -> bool:
    """Return whether a partial text may still begin with a marker that opens reasoning."""
    beginning = text[_lead(text) :]
    return any(format.opening.startswith(beginning) for format in FORMATS) or _ROLE.startswith(beginning)


_ROLE = "<|start|>assistant"
"""The header of a gpt-oss message, which some servers leave to the model to write."""
_LEAD = re.compile(r"[\s\ufeff\u200b]*(?:<\|start\|>assistant)?")


def _lead(text: str, start: int = 0) -> int:
    """Return the index of the first visible character of a text, after a gpt-oss header if there is one."""
    match = _LEAD.match(text, start)
    return match.end() if match else start


def _blocks(text: str) -> Iterator[tuple[str, int | None]]:
    """Yield the blocks of reasoning at the beginning of a text with their end index; None: the block has not ended."""
    start = 0
    while True:
        begin = _lead(text, start)
        format = next((format for format in FORMATS if text.startswith(format.opening, begin)), None)
        if format is None:
            return
        # A channel may be the answer itself; in other formats the end comes after the opening.
        inside = begin if format is HARMONY else begin + len(format.opening)
        end = format.end.search(text, inside)
        block = text[inside : end.start() if end else None]
        yield re.sub(format.noise, "\n", block) if format.noise else block, end.end() if end else None
        if end is None or format is HARMONY:
            return
        start = end.end()


def _joined(parts: Iterable[str]) -> str:
    """Return blocks of reasoning as one text."""
    return "\n\n".join(text for part in parts if (text := part.strip()))


def closings_in(template: str, added_tokens: Iterable[str]) -> tuple[str, ...]:
    """Return the closing markers that a chat template contains or a vocabulary has as a token."""
    tokens = set(added_tokens)
    return tuple(format.closing for format in FORMATS if format.closing in template or format.closing in tokens)


def opened_by(prompt: str, template: str) -> str:
    """Return the opening marker at the end of a prompt, or "" if the prompt opens no block of reasoning.

    Args:
        prompt: the prompt, as the chat template rendered it.
        template: the chat template; a marker that it does not contain can only come from data.
    """
    end = prompt.rstrip()
    if match := _OPEN_CHANNEL.search(end):
        return match[0] if HARMONY.opening in template else ""
    return next(
        (format.opening for format in FORMATS if end.endswith(format.opening) and format.opening in template), ""
    )


_OPEN_CHANNEL = re.compile(r"<\|channel\|>\s*(?:analysis|commentary)[^<>]*(?:<\|message\|>)?\Z")


def closing_of(opened: str) -> str:
    """Return the text that ends the block that an opening marker, as `opened_by` returns it, has begun."""
    if opened.startswith(HARMONY.opening):
        return f"<|end|>{_ROLE}{HARMONY.closing}"
    closing = next(format.closing for format in FORMATS if format.opening == opened)
    return f"{closing}\n\n"


MARKERS = frozenset(marker for format in FORMATS for marker in format.markers)
"""Markers that are kept in completions, even if they are special tokens of the tokenizer."""
