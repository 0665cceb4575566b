"""Reasoning that a model writes before its answer: how models mark it, and the answer behind it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class ReasoningFormat:
    """How a family of models marks reasoning."""

    opening: str
    """What a block of reasoning begins with."""
    closing: str
    """What ends it, as a chat template or a model writes it."""
    pattern: str = ""
    """A regular expression for what ends it, where that varies; "" stands for `closing` itself."""
    within: tuple[str, ...] = ()
    """Further markers within a block."""
    noise: str = ""
    """A regular expression for what is no part of the reasoning's text."""

    @cached_property
    def end(self) -> re.Pattern[str]:
        """The end of a block, with the white space that separates it from the answer."""
        return re.compile(f"(?:{self.pattern or re.escape(self.closing)})\\s*")

    @property
    def markers(self) -> tuple[str, ...]:
        """Every marker of this format."""
        return (self.opening, self.closing, *self.within)


HARMONY = ReasoningFormat(
    "<|channel|>",
    "<|channel|>final<|message|>",
    # "<|channel|>final <|constrain|>json<|message|>" is another way to begin an answer.
    pattern=r"<\|channel\|>\s*final\b(?:(?!<\|message\|>).)*<\|message\|>",
    within=("<|message|>", "<|start|>", "<|end|>", "<|constrain|>"),
    noise=r"(?:<\|(?:message|start|end|constrain|channel)\|>\s*(?:(?:assistant|analysis|commentary)\b)?)+",
)
"""The format of gpt-oss, in which an answer is a channel too."""
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
"""The formats that are known; vLLM and SGLang have a reasoning parser for each."""


@dataclass(frozen=True, slots=True)
class ParsedCompletion:
    """A completion, divided into reasoning and answer."""

    reasoning: str
    """Without its markers; "" where there is none."""
    answer: str
    """What stands behind the reasoning; "" where that has not ended."""
    start: int | None
    """Where the answer begins in the text; None: the reasoning has not ended."""


@dataclass(frozen=True, slots=True)
class ReasoningParser:
    """Divides what a model writes behind one prompt into reasoning and answer.

    A block of reasoning counts where it stands at the beginning: an answer may quote the same markers.
    """

    opened: str = ""
    """The marker with which the chat template itself has opened a block at the end of the prompt."""
    closings: tuple[str, ...] = ()
    """Markers that end reasoning even where nothing opened it, for models whose template or vocabulary has them."""

    def parse(self, text: str) -> ParsedCompletion:
        """Return reasoning and answer of a whole completion."""
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
        """Return the beginning of a completion divided, if nothing to come can change where its answer begins."""
        parsed = self.parse(text)
        if parsed.start is None or may_open(parsed.answer) or (parsed.start == 0 and self.closings):
            return None
        return parsed


def may_open(text: str) -> bool:
    """Return whether a growing text may turn out to begin with a marker that opens reasoning."""
    begun = text[_lead(text) :]
    return any(format.opening.startswith(begun) for format in FORMATS) or _ROLE.startswith(begun)


_ROLE = "<|start|>assistant"
"""The header of a message of gpt-oss, which some servers leave to the model."""
_LEAD = re.compile(r"[\s\ufeff\u200b]*(?:<\|start\|>assistant)?")


def _lead(text: str, start: int = 0) -> int:
    """Return where a text begins, white space and what is invisible apart."""
    match = _LEAD.match(text, start)
    return match.end() if match else start


def _blocks(text: str) -> Iterator[tuple[str, int | None]]:
    """Yield the blocks of reasoning at the beginning of a text, and where each ends; None: it does not."""
    start = 0
    while True:
        begin = _lead(text, start)
        format = next((format for format in FORMATS if text.startswith(format.opening, begin)), None)
        if format is None:
            return
        # A channel may be the answer itself; in other formats the end comes behind the opening.
        inside = begin if format is HARMONY else begin + len(format.opening)
        end = format.end.search(text, inside)
        block = text[inside : end.start() if end else None]
        yield re.sub(format.noise, "\n", block) if format.noise else block, end.end() if end else None
        if end is None or format is HARMONY:
            return
        start = end.end()


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(text for part in parts if (text := part.strip()))


def closings_in(template: str, added_tokens: Iterable[str]) -> tuple[str, ...]:
    """Return the markers that end reasoning which a chat template writes or a vocabulary has as a token."""
    tokens = set(added_tokens)
    return tuple(format.closing for format in FORMATS if format.closing in template or format.closing in tokens)


def opened_by(prompt: str, template: str) -> str:
    """Return the beginning of a block of reasoning that the end of a prompt has opened, or "".

    Args:
        prompt: as the chat template rendered it.
        template: the template; a marker that it does not know can only come from data.
    """
    end = prompt.rstrip()
    if match := _OPEN_CHANNEL.search(end):
        return match[0] if HARMONY.opening in template else ""
    return next(
        (format.opening for format in FORMATS if end.endswith(format.opening) and format.opening in template), ""
    )


_OPEN_CHANNEL = re.compile(r"<\|channel\|>\s*(?:analysis|commentary)[^<>]*(?:<\|message\|>)?\Z")


def closing_of(opened: str) -> str:
    """Return what ends the block that something else, as `opened_by` returns it, has begun."""
    if opened.startswith(HARMONY.opening):
        return f"<|end|>{_ROLE}{HARMONY.closing}"
    closing = next(format.closing for format in FORMATS if format.opening == opened)
    return f"{closing}\n\n"


MARKERS = frozenset(marker for format in FORMATS for marker in format.markers)
"""Markers that must be seen in a completion, even where a tokenizer takes them for special tokens."""
