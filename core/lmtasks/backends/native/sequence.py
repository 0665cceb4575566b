"""Sequences that wait or run: what is known of each, and what it shares with others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import torch

from lmtasks.backends.base import Request
from lmtasks.backends.native.kv_cache import KVBlock
from lmtasks.backends.native.prompt_lookup import PromptLookup
from lmtasks.backends.stopping import StopCheck


@dataclass(slots=True, eq=False)
class SharedPrefix:
    """Tokens that some prompts begin with, computed once for all of them."""

    ids: tuple[int, ...]
    adapter: str | None
    """The adapter that its keys and values are computed with."""
    users: int = 0
    """Sequences with it that wait or run."""
    waiting: int = 0
    """Sequences with it that wait."""
    shares_kv: bool = False
    """Whether its keys and values are read where they are; else each sequence gets a copy."""
    block: KVBlock | None = None

    @property
    def is_untouched(self) -> bool:
        """Whether it can still be divided otherwise: nothing of it is computed, and no sequence runs with it."""
        return not self.ids or (self.block is None and self.users == self.waiting)


@dataclass(slots=True, eq=False)
class SequenceState:
    """A prompt with the tokens generated so far, or with the text that is scored."""

    id: int
    token_ids: list[int]
    """All tokens that are known."""
    prompt_tokens: int
    """How many of them are the prompt's."""
    total_tokens: int
    """Tokens that are computed in the end, at most."""
    adapter: str | None
    arrival: int = -1
    """Sequences that were added before the same step have the same number."""
    prefix: SharedPrefix = field(init=False)
    block: KVBlock = field(init=False)
    slot: int = -1
    computed: int = 0
    """Tokens whose keys and values are in the slot."""

    @property
    def prefix_len(self) -> int:
        """Tokens at its beginning whose keys and values are not in its own slot."""
        return len(self.prefix.ids) if self.prefix.shares_kv else 0

    @property
    def pending(self) -> int:
        """Tokens that are known and not yet computed."""
        return min(len(self.token_ids), self.total_tokens) - self.prefix_len - self.computed

    @property
    def slot_tokens(self) -> int:
        """Tokens that its slot must hold."""
        return self.total_tokens - self.prefix_len


@dataclass(slots=True, eq=False)
class GenerationState(SequenceState):
    """A sequence that grows by what the model generates."""

    request: Request = field(kw_only=True)
    generator: torch.Generator = field(kw_only=True)
    stop_check: StopCheck = field(kw_only=True)
    lookup: PromptLookup = field(default_factory=PromptLookup)
    draft_tokens: int = 0
    """How many of the last tokens are a draft that is not verified yet."""

    @property
    def new_ids(self) -> list[int]:
        """The tokens generated so far."""
        return self.token_ids[self.prompt_tokens :]

    def propose_draft(self) -> int:
        """Append draft tokens, which the next step verifies; return how many."""
        generation = self.request.sampling_params
        if generation.temperature or generation.repetition_penalty != 1:
            return 0
        left = generation.max_new_tokens - len(self.new_ids) - 1
        draft = self.lookup.propose(self.token_ids)[:left]
        self.token_ids.extend(draft)
        self.draft_tokens = len(draft)
        return len(draft)

    def remove_draft(self) -> list[int]:
        """Remove the draft tokens, and return them."""
        verified = len(self.token_ids) - self.draft_tokens
        draft = self.token_ids[verified:]
        del self.token_ids[verified:]
        self.draft_tokens = 0
        return draft


@dataclass(slots=True, eq=False)
class ScoringState(SequenceState):
    """A text behind a prompt whose likelihood is computed."""

    logprob: float = 0.0


SequenceT = TypeVar("SequenceT", bound=SequenceState)
