"""Limits of the native engine. Imports neither torch nor transformers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Limits within which the scheduler works; none of them changes a text."""

    max_batch: int = 64
    """Sequences that run at once."""
    max_scoring_batch: int = 32
    """Texts whose likelihood is computed at once."""
    max_batch_tokens: int = 2048
    """Tokens that pass through the model at once."""
    max_batch_logits: int = 2**24
    """Logits computed at once where those of every token are needed: tokens times the vocabulary."""
    max_padding: int = 1024
    """Unused tokens from which on sequences do not share a KV block, and blocks are shrunk. Attention computes a block
    at once, as if all of its sequences were the longest; one more block costs as much as to read 1,900 tokens (2.8 ms
    a step of 30 layers on two cores)."""
    max_speculative_batch: int = 2
    """Running sequences up to which draft tokens are proposed: more of them fill the hardware without."""
