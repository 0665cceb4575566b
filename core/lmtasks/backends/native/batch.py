"""The batch of a step: which tokens of which sequences pass through the model, and where logits are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic

import torch

from lmtasks.backends.native.attention import DecodeBatch, ForwardBatch, PrefillChunk
from lmtasks.backends.native.kv_cache import KVBlock
from lmtasks.backends.native.sequence import SequenceT


@dataclass(slots=True)
class Batch(Generic[SequenceT]):
    """A row of tokens with what a model needs to compute it."""

    token_ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    """The tokens' positions in their sequences."""
    forward: ForwardBatch = field(default_factory=lambda: ForwardBatch([], []))
    keep: list[int] = field(default_factory=list)
    """Indices of the tokens behind which logits are computed."""
    adapters: list[tuple[str | None, int, int]] = field(default_factory=list)
    """Adapters, each with the index of the first token that it computes and how many there are."""
    sequences: list[tuple[SequenceT, int]] = field(default_factory=list)
    """Sequences, each with how many of its tokens are in the row."""
    logits: list[tuple[SequenceT, int]] = field(default_factory=list)
    """Sequences in the order of `keep`, each with how many of the logits are its own."""

    def append(self, sequence: SequenceT, count: int) -> None:
        """Append the next tokens of a sequence; logits are kept behind the prompt's last token and all later ones."""
        first = sequence.prefix_len + sequence.computed
        start = len(self.token_ids)
        kept = min(count, first + count - sequence.prompt_tokens + 1)
        if kept > 0:
            self.keep.extend(range(start + count - kept, start + count))
            self.logits.append((sequence, kept))
        self.adapters.append((sequence.adapter, start, count))
        self.token_ids.extend(sequence.token_ids[first : first + count])
        self.positions.extend(range(first, first + count))
        self.sequences.append((sequence, count))

    @property
    def prompt_tokens(self) -> int:
        """How many of the tokens are of prompts."""
        return sum(
            min(count, max(0, sequence.prompt_tokens - sequence.prefix_len - sequence.computed))
            for sequence, count in self.sequences
        )


def build_batch(
    running: Sequence[SequenceT], *, max_tokens: int, max_logits: int, device: torch.device
) -> Batch[SequenceT]:
    """Return a batch of one token of each decoding sequence, and as much of the others as there is room for.

    Args:
        running: sequences with slots; they are not changed.
        max_tokens: tokens of the row, at most.
        max_logits: positions with logits, at most, where those of every token of a text are needed.
        device: the model's device.
    """
    decoding: dict[KVBlock, list[SequenceT]] = {}
    for sequence in running:
        if sequence.pending == 1:
            decoding.setdefault(sequence.block, []).append(sequence)
    room = max_tokens - sum(map(len, decoding.values()))
    batch: Batch[SequenceT] = Batch()
    for sequence in running:
        without_logits = max(0, sequence.prompt_tokens - 1 - sequence.prefix_len - sequence.computed)
        count = min(sequence.pending, room, without_logits + max(0, max_logits - len(batch.keep)))
        if sequence.pending > 1 and count > 0:
            start = len(batch.token_ids)
            batch.forward.prefill.append(PrefillChunk(start, count, sequence.block, sequence.slot, sequence.computed))
            batch.append(sequence, count)
            room -= count
    for block, members in decoding.items():
        members.sort(key=lambda sequence: sequence.slot)
        batch.forward.decode.append(
            DecodeBatch(
                len(batch.token_ids),
                block,
                slots=torch.tensor([sequence.slot for sequence in members], device=device),
                positions=torch.tensor([sequence.computed for sequence in members], device=device),
                high=members[-1].slot + 1,
                width=max(sequence.computed for sequence in members) + 1,
            )
        )
        for sequence in members:
            batch.append(sequence, 1)
    return batch
