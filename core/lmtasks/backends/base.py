"""The interface of every backend: requests in, completions out. Imports neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from lmtasks.models.adapter_files import Adapter
from lmtasks.models.info import ModelInfo
from lmtasks.prompts.chat_template import Tokenizer
from lmtasks.reasoning import ReasoningParser
from lmtasks.task import SamplingParams

OnText = Callable[[str], None]
"""Called with the whole text of a completion so far, each time it has grown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The parts of a request that a backend reads, and the features that it has."""

    token_ids: bool = True
    """Whether it reads `Request.token_ids`."""
    messages: bool = False
    """Whether it reads `Request.messages`."""
    adapters: bool = False
    """Whether `attach` works, so that requests may name LoRA adapters."""
    logprobs: bool = False
    """Whether `loglikelihood` works."""
    streaming: bool = False
    """Whether it calls `Request.on_text` while a completion grows."""


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt to be completed, in every form that a backend may read."""

    key: str
    """With the seed it decides what is drawn when sampling: the same key gives the same text in any batch."""
    token_ids: Sequence[int]
    sampling_params: SamplingParams
    """How the completion is generated; requests of one call may differ in it."""
    adapter: str | None = None
    """The `id` of the attached adapter to use; None: the base model."""
    reasoning: ReasoningParser = ReasoningParser()
    """Separates reasoning from the answer; stop strings end the answer alone."""
    messages: Sequence[Mapping[str, str]] = ()
    """The rendered conversation, each message with "role" and "content"; empty where only tokens are known."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """The example's inputs, by field; for baselines that answer without a prompt."""
    on_text: OnText | None = None
    """Called each time the answer's text has grown; what it was called with is never taken back."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The text that a model generated for a request."""

    text: str
    """The answer, without end tokens and stop strings; "" where the reasoning has not ended."""
    tokens: int
    """Number of tokens generated, those of the reasoning and the end token included."""
    finish_reason: Literal["stop", "length"]
    reasoning: str = ""
    """Text generated before the answer, without the markers of reasoning."""
    reasoning_tokens: int = 0
    """How many of `tokens` are reasoning, its markers included."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """A prompt with the text that may follow it."""

    token_ids: Sequence[int]
    """The prompt's tokens; at least one."""
    answer_ids: Sequence[int]
    """The text's tokens; at least one."""
    adapter: str | None = None
    """The `id` of the attached adapter to use; None: the base model."""


@dataclass(frozen=True, slots=True)
class QuantizationLoss:
    """The perplexity of a run's own prompts with and without quantization."""

    tokens: int
    """Number of prompt tokens measured."""
    baseline_ppl: float
    """Their perplexity without quantization."""
    quantized_ppl: float
    """Their perplexity with quantization."""

    @property
    def change(self) -> float:
        """Relative increase of the perplexity: 0.01 is 1%."""
        return self.quantized_ppl / self.baseline_ppl - 1


class LanguageModel(Protocol):
    """A model that a backend has loaded."""

    @property
    def info(self) -> ModelInfo:
        """The model's identity, as a run records it."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that prompts are rendered with."""
        ...

    @property
    def backend(self) -> str:
        """The backend's name, as a run records it."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """The backend's capabilities."""
        ...

    @property
    def quantization_loss(self) -> QuantizationLoss | None:
        """Measured loss of `info.quantize`; None: nothing is quantized, or nothing was generated yet."""
        ...

    def attach(self, adapter: Adapter) -> float:
        """Load an adapter, for requests that name it; one that is loaded already stays.

        Returns:
            The largest change of logits that it makes behind a few probe tokens. 0: it changes nothing.

        Raises:
            AdapterError: it belongs to another base model, or some of its weights do not fit.
        """
        ...

    def generate(
        self, requests: Sequence[Request], *, seed: int, batch_size: int | None = None
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Complete prompts, and yield completions as they finish. Closing the iterator aborts the others.

        Args:
            requests: in any order; the backend chooses its own. Requests with different adapters share batches where
                the adapters can.
            seed: seed of the draws.
            batch_size: requests at once; None: as many as the backend finds best, within its memory.

        Yields:
            Those that finished together: the index of each in `requests`, and its completion.
        """
        ...

    def loglikelihood(
        self, continuations: Sequence[Continuation], *, batch_size: int | None = None
    ) -> Iterator[list[tuple[int, float]]]:
        """Compute how likely the model finds texts behind prompts.

        Args:
            continuations: in any order.
            batch_size: texts at once; None: as many as the backend finds best, within its memory.

        Yields:
            Those that finished together: the index of each in `continuations`, and the natural logarithm of the
            probability of its answer's tokens, given the prompt's.
        """
        ...
