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


class GumbelNoise(LogitsProcessor):
    """Adds Gumbel noise, after which the largest logit is a draw from the softmax.

    The Gumbel-max trick (Gumbel 1954, Maddison et al. 2014): argmax(logits + g), with g = -log(-log(u)) and u
    uniform, is distributed as softmax(logits). Each row draws from a generator of its own.
    """

    def __init__(self, keys: Sequence[str], seed: int) -> None:
        self.generators = []
        for key in keys:
            digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
            self.generators.append(torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True)))

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return noisy logits, shape [batch, vocabulary], float32."""
        uniform = torch.stack([torch.rand(scores.shape[-1], generator=g, dtype=torch.float64) for g in self.generators])
        noise = -torch.log(-torch.log(uniform.clamp_min(torch.finfo(torch.float64).tiny)))
        return (scores.float() + noise.to(scores.device, torch.float32)).to(torch.float32)  # type: ignore[return-value]


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
    processors.append(GumbelNoise(keys, seed))
    return processors
