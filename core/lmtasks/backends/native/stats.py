"""Statistics of an engine, for tests and reports. Imports neither torch nor transformers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BlockStats:
    """A KV block as the last step used it."""

    slots: int
    width: int
    """Tokens that each slot may hold."""
    sequences: int
    """Slots in use."""
    longest: int
    """Tokens that the longest of the sequences needs in the end."""
    tokens: int
    """Tokens that its sequences had in it."""


@dataclass(slots=True)
class StepCounts:
    """Totals over all steps of an engine so far."""

    steps: int = 0
    prefill_tokens: int = 0
    """Prompt tokens computed, those of shared prefixes included."""
    decode_tokens: int = 0
    """Generated or scored tokens computed, rejected drafts included."""
    prefix_hits: int = 0
    """Sequences that took the keys and values of a prefix instead of computing it."""
    prefix_hit_tokens: int = 0
    """Prompt tokens that these need not compute."""
    draft_tokens: int = 0
    """Draft tokens proposed."""
    draft_hits: int = 0
    """Draft tokens that the model confirmed."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Totals of an engine so far, and what its KV cache holds now."""

    counts: StepCounts
    running: int
    waiting: int
    blocks: tuple[BlockStats, ...]
    """The blocks in use in the last step, without those of shared prefixes."""
    reserved_tokens: int
    """Tokens that KV blocks are reserved for now, shared prefixes included."""
    reserved_bytes: int
    peak_kv_bytes: int
    """Bytes that were reserved for keys and values at once, at most."""

    @property
    def slots(self) -> int:
        """Slots of the blocks in use."""
        return sum(block.slots for block in self.blocks)

    @property
    def padding_share(self) -> float:
        """Share of the tokens in the blocks of the last step that belong to no sequence."""
        reserved = sum(block.slots * block.width for block in self.blocks)
        return 1 - sum(block.tokens for block in self.blocks) / reserved if reserved else 0.0
