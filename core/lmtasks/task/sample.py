"""Examples, and samples: what a model made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "skipped", "unknown"]
"""Why a completion ended: an end token or stop string, the limit of new tokens, the example was skipped, or the output
was made elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One item: what a prompt may use, and every answer that counts as right."""

    id: str
    """Unique in its data set; reports and resuming rely on it."""
    inputs: Mapping[str, str]
    """Text by field name; optional fields may be missing."""
    references: tuple[str, ...] = ()
    """Every right answer; "" alone says that giving no answer is right; empty for data without references."""
    target: str | None = None
    """The answer that few-shot prompts show and training learns; None: the first reference."""
    language: str | None = None
    """Language of the references, a BCP 47 tag such as "zh" or "en"; None: detected from their script."""
    meta: Mapping[str, str] = field(default_factory=dict)
    """Other properties in the data (topic, domain); reports may slice by them."""

    @property
    def answer(self) -> str | None:
        """The answer that a model should write: the target, else the first reference, else None."""
        if self.target is not None:
            return self.target
        return self.references[0] if self.references else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLikelihood:
    """Log-likelihood of a text as the answer to a prompt, without its end token."""

    logprob: float
    """Natural logarithm of the text's probability."""
    tokens: int
    """Number of the model's tokens in the text."""
    bytes: int
    """Number of bytes of the text in UTF-8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One example with what the model made of it: a line of samples.jsonl."""

    index: int
    """Position in the data, from 0."""
    id: str
    inputs: Mapping[str, str]
    references: tuple[str, ...]
    prediction: str
    """The completion as the task parsed it."""
    language: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    prompt_sha256: str = ""
    prompt_tokens: int = 0
    truncated: Mapping[str, int] = field(default_factory=dict)
    """Number of characters removed from each field that was truncated to fit the model."""
    completion: str = ""
    """The text that the model wrote after its reasoning."""
    finish_reason: FinishReason = "stop"
    completion_tokens: int = 0
    """Number of tokens that the model generated, reasoning included."""
    reasoning: str = ""
    """Text that the model wrote before its answer, without the markers of reasoning; metrics do not see it."""
    reasoning_tokens: int = 0
    loglikelihoods: tuple[LogLikelihood, ...] = ()
    """Log-likelihoods of the references, in their order, where the run measured them."""
    error: str | None = None
    """Why the task could not parse the completion; the prediction is then empty."""
