"""Training examples as token ids: a prompt, and behind it the target tokens whose loss is trained on."""

from __future__ import annotations

from array import array
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """A token sequence whose last tokens are the target; the tokens before them are masked in the loss."""

    token_ids: array[int]
    """Prompt, answer and end token."""
    target_tokens: int
    """Number of target tokens at the end: the answer and its end token."""
    truncated: bool
    """Whether the prompt lost text to fit the maximum length."""


@dataclass(frozen=True, slots=True)
class TokenizedDataset:
    """Training examples, and what tokenizing them left out."""

    examples: tuple[TrainingExample, ...]
    skipped: int
    """Number of examples that were too long and left out."""

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each example."""
        return [len(example.token_ids) for example in self.examples]

    @property
    def tokens(self) -> int:
        """Number of tokens of all examples."""
        return sum(self.lengths)

    @property
    def target_tokens(self) -> int:
        """Number of target tokens of all examples."""
        return sum(example.target_tokens for example in self.examples)

    @property
    def truncated(self) -> int:
        """Number of examples whose prompt lost text."""
        return sum(example.truncated for example in self.examples)
