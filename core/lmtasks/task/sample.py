"""What a prompt is made from, and what a model made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Finish = Literal["stop", "length", "skipped", "unknown"]
"""Why a completion ended: an end token or stop string, the limit of new tokens, it was never begun, or the output
was made elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One item: what a prompt may use, and every answer that counts as right."""

    id: str
    """Unique in its data set; reports and reuse key on it."""
    inputs: Mapping[str, str]
    """Text by field name; optional fields may be missing."""
    references: tuple[str, ...] = ()
    """Every right answer; "" alone says that giving no answer is right; empty for data without references."""
    target: str | None = None
    """What a few-shot answer shows and training learns to write; None: the first reference."""
    language: str | None = None
    """Of the references, a BCP 47 tag such as "zh" or "en"; None: read from their script."""
    meta: Mapping[str, str] = field(default_factory=dict)
    """Whatever else the data says of it (topic, domain); reports may slice by it."""

    @property
    def answer(self) -> str | None:
        """What a model should write: the target, else the first reference, else None."""
        if self.target is not None:
            return self.target
        return self.references[0] if self.references else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLikelihood:
    """How likely a model finds a text as the answer to a prompt; its end token is not counted in."""

    logprob: float
    """The natural logarithm of the text's probability."""
    tokens: int
    """How many tokens of the model the text has."""
    bytes: int
    """How many bytes of UTF-8 the text has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One example with what the model made of it: a line of samples.jsonl."""

    index: int
    """Its place in the data, from 0."""
    id: str
    inputs: Mapping[str, str]
    references: tuple[str, ...]
    prediction: str
    """The completion as the task parsed it."""
    language: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    prompt_sha256: str = ""
    prompt_tokens: int = 0
    cut: Mapping[str, int] = field(default_factory=dict)
    """Characters that each field lost to fit the model."""
    completion: str = ""
    """The text of the model, behind its reasoning."""
    finish: Finish = "stop"
    completion_tokens: int = 0
    """How many tokens the model produced, those of its reasoning included."""
    reasoning: str = ""
    """What the model wrote before its answer, without the markers of reasoning; no score sees it."""
    reasoning_tokens: int = 0
    loglikelihoods: tuple[LogLikelihood, ...] = ()
    """Of the references under the model, in their order, where they were asked for."""
    error: str | None = None
    """Why the task could not read the completion; the prediction is then empty."""
