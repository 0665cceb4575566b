"""How a model answers a task, and how its answer is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

from lmtasks.task.validate import as_tuple, check_type


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the tokens of a completion are chosen, and where it ends."""

    max_new_tokens: int = 128
    stop: tuple[str, ...] = ()
    """Strings that end a completion; its text ends before them."""
    temperature: float = 0.0
    """0 takes the most likely token at every step (greedy)."""
    top_p: float = 1.0
    """Sample among the most likely tokens whose probabilities add up to this share, 0 to 1."""
    top_k: int = 0
    """Sample among this many most likely tokens; 0: all of them."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that the prompt or the answer already contains become less likely; 1: no penalty."""

    def __post_init__(self) -> None:
        """Check types and ranges.

        Raises:
            ValueError: a value is out of range, or sampling settings are given without a temperature.
        """
        for name in ("max_new_tokens", "top_k"):
            check_type(name, getattr(self, name), (int,))
        for name in ("temperature", "top_p", "repetition_penalty"):
            check_type(name, getattr(self, name), (float, int))
        if not 1 <= self.max_new_tokens < 2**63:
            raise ValueError(f"max_new_tokens must be at least 1 and below 2**63, not {self.max_new_tokens}")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be 0 (greedy) or more, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if not 0 <= self.top_k < 2**63:
            raise ValueError(f"top_k must be 0 (all) or more and below 2**63, not {self.top_k}")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"repetition_penalty must be above 0 (1: none), not {self.repetition_penalty}")
        if self.temperature == 0 and (self.top_p < 1 or self.top_k > 0):
            raise ValueError("top_p and top_k need a temperature above 0: greedy generation ignores them")
        object.__setattr__(self, "stop", as_tuple(self.stop))
        for text in self.stop:
            check_type("a stop string", text, (str,))
        if any(not text for text in self.stop):
            raise ValueError("an empty stop string would end every completion at once")


@dataclass(frozen=True, slots=True, kw_only=True)
class Generate(SamplingParams):
    """The model writes its answer as text, and `parse` makes the prediction from it."""

    parse: Callable[[str], str] = str.strip
    """Returns the prediction for a completion; it accepts any text and never raises."""
    no_answer: str | None = None
    """What the model should write where the data has an empty list of references; None: such data is an error.

    A prediction that equals it, whatever its case and with or without a full stop, becomes "".
    """

    def __post_init__(self) -> None:
        """Check types and ranges, as `SamplingParams` does.

        Raises:
            ValueError: a value has the wrong type or is out of range.
        """
        SamplingParams.__post_init__(self)  # super() does not know the class that slots=True makes
        check_type("parse", self.parse, (Callable,))  # type: ignore[arg-type] # isinstance accepts it
        check_type("no_answer", self.no_answer, (str, type(None)))

    @property
    def sampling_params(self) -> SamplingParams:
        """The settings that a backend needs, without those that read the answer."""
        return SamplingParams(**{field.name: getattr(self, field.name) for field in fields(SamplingParams)})

    @property
    def is_verbatim(self) -> bool:
        """Whether a prediction is the completion itself, so that it can be shown while it is generated."""
        return self.parse is str.strip and self.no_answer is None

    def read(self, completion: str) -> str:
        """Return the prediction for a completion; "" if it says that there is no answer."""
        prediction = self.parse(completion)
        if self.no_answer is not None and prediction.casefold().rstrip(".。!") == self.no_answer.casefold():
            return ""
        return prediction


Output = Generate
"""How a model answers: the type of `Task.output`. A further way, such as a choice among labels by their
log-likelihood, becomes a class beside `Generate` and joins it here as a union."""
