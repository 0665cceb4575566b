"""The door to every model: prompts in, completions out. Imports neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from lmtasks.models.adapter_files import Adapter
from lmtasks.models.info import ModelInfo
from lmtasks.prompts.chat_template import Tokenizer
from lmtasks.reasoning import ReasoningParser
from lmtasks.task import Generation

OnText = Callable[[str], None]
"""Called with the whole text of a completion so far, each time it has grown."""


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt to be answered."""

    key: str
    """Decides, with the seed, what is drawn when sampling: the same key gives the same text in any company."""
    token_ids: Sequence[int]
    generation: Generation
    """How its answer is drawn; requests of one call may differ in it."""
    adapter: str | None = None
    """The `id` of an attached adapter that answers; None: the base model does."""
    reasoning: ReasoningParser = ReasoningParser()
    """Divides what is written into reasoning and answer; stop strings end the answer alone."""
    messages: tuple[Mapping[str, str], ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote."""

    text: str
    """The answer, without end tokens and stop strings; "" where the reasoning has not ended."""
    tokens: int
    """How many the model produced, those of its reasoning and the end token included."""
    finish: Literal["stop", "length"]
    reasoning: str = ""
    """What it wrote before its answer, without the markers of reasoning."""
    reasoning_tokens: int = 0
    """How many of `tokens` are reasoning, its markers included."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """A prompt with the text that may follow it."""

    token_ids: Sequence[int]
    """Of the prompt; at least one."""
    answer_ids: Sequence[int]
    """At least one."""
    adapter: str | None = None
    """As in Request."""


@dataclass(frozen=True, slots=True)
class QuantizationLoss:
    """What rounding a model's layers to 8 bits changes, measured on prompts that it was asked."""

    tokens: int
    """Of the prompts that were measured."""
    exact: float
    """The perplexity of their tokens without rounding."""
    rounded: float
    """With it."""

    @property
    def change(self) -> float:
        """By what share rounding raises the perplexity."""
        return self.rounded / self.exact - 1


class LanguageModel(Protocol):
    """A model that answers prompts."""

    @property
    def info(self) -> ModelInfo:
        """What a run records of it."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """What prompts are rendered with."""
        ...

    @property
    def engine(self) -> str:
        """What computes answers, as a run records it."""
        ...

    @property
    def rounding(self) -> QuantizationLoss | None:
        """What `info.quantize` was measured to change; None: it rounds nothing, or has not answered yet."""
        ...

    def attach(self, adapter: Adapter) -> float:
        """Take an adapter into memory, for requests that name it; one that is there already stays.

        Returns:
            By how much it changes what the model says behind a few words: the largest difference of logits. 0: it
            changes nothing.

        Raises:
            AdapterError: it belongs to another base model, or not all of its weights find their place.
        """
        ...

    def generate(
        self,
        requests: Sequence[Request],
        *,
        seed: int,
        batch_size: int | None = None,
        on_text: OnText | None = None,
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Answer prompts, and yield the answers as they are finished.

        Args:
            requests: in any order; they are worked on in an order of the model's own. Those of several adapters
                share batches where the adapters can.
            seed: of the draws.
            batch_size: prompts at once; None: as many as the model thinks best, within its memory.
            on_text: hears the text grow; only for a single request.

        Yields:
            Those that finished together: each request's place in `requests`, and its completion.
        """
        ...

    def loglikelihood(
        self, continuations: Sequence[Continuation], *, batch_size: int | None = None
    ) -> Iterator[list[tuple[int, float]]]:
        """Tell how likely the model finds texts behind prompts.

        Args:
            continuations: in any order.
            batch_size: at once; None: as many as the model thinks best, within its memory.

        Yields:
            Those that were measured together: each one's place in `continuations`, and the natural logarithm of the
            probability of its answer's tokens, given the prompt's.
        """
        ...
