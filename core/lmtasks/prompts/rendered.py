"""Rendered prompts: token ids, chat messages and what belongs to them."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field

from lmtasks.errors import PromptError
from lmtasks.reasoning import ReasoningParser


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPrompt:
    """The prompt of one example, as a model reads it."""

    token_ids: array[int]
    """As machine integers: a large data set has all its prompts in memory at once."""
    messages: tuple[Mapping[str, str], ...] = ()
    """The prompt as chat messages with "role" and "content", before any chat template; few-shot examples are turns."""
    truncated: Mapping[str, int] = field(default_factory=dict)
    """Characters removed from each field so that the prompt fits."""
    reasoning: ReasoningParser = ReasoningParser()
    """Divides the completion of this prompt into reasoning and answer."""
    answer_start: array[int] = field(default_factory=lambda: array("i"))
    """Token ids with which an answer without reasoning begins: the markers that end reasoning, or none."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the token ids, by which a resumed run recognises a finished sample."""
        return hashlib.sha256(",".join(map(str, self.token_ids)).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPair:
    """A prompt with the answer that training teaches, for one example."""

    prompt: RenderedPrompt
    """Exactly what inference renders."""
    answer_ids: array[int]
    """Token ids of the answer and its end token."""


class OverlongPromptError(PromptError):
    """A prompt with the tokens reserved for its answer exceeds the model's context."""
