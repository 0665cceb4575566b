"""Drawing tokens so that an example's text depends on its own seed and on no neighbour in the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lmtasks.task import Generation


class Draw(LogitsProcessor):
    """Draws the next token of each row from its softmax, with a generator of the row's own.

    By inversion: with u uniform in [0, 1), the first token whose cumulative probability exceeds u.
    """

    def __init__(self, keys: Sequence[str], seed: int) -> None:
        self.generators = []
        for key in keys:
            digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
            self.generators.append(torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True)))

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return scores, shape [batch, vocabulary], that are 0 for the drawn token and -inf for all others."""
        precise = torch.float32 if scores.device.type == "mps" else torch.float64  # mps has no float64
        cumulative = torch.softmax(scores.to(precise), dim=-1).cumsum(-1)
        uniform = torch.cat([torch.rand(1, generator=generator, dtype=precise) for generator in self.generators])
        threshold = uniform.to(scores.device).unsqueeze(-1) * cumulative[:, -1:]
        drawn = torch.searchsorted(cumulative, threshold, right=True).clamp_max(scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0.0)  # type: ignore[return-value]


def logits_processors(generation: Generation, keys: Sequence[str], seed: int) -> LogitsProcessorList:
    """Return what turns greedy choice into sampling; nothing at temperature 0.

    Args:
        generation: temperature, top_p and top_k.
        keys: of the batch's rows.
        seed: of the draws.
    """
    processors = LogitsProcessorList()
    if generation.temperature == 0:
        return processors
    processors.append(TemperatureLogitsWarper(generation.temperature))
    if generation.top_k:
        processors.append(TopKLogitsWarper(generation.top_k))
    if generation.top_p < 1:
        processors.append(TopPLogitsWarper(generation.top_p))
    processors.append(Draw(keys, seed))
    return processors
