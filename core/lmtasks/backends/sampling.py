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

from lmtasks.models.finite import check_finite
from lmtasks.task import SamplingParams


class CheckFinite(LogitsProcessor):
    """Refuses logits from which no token can be chosen."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return scores, shape [batch, vocabulary], as they are.

        Raises:
            NotFiniteError: the highest of a row is NaN or infinite.
        """
        check_finite(scores.amax(-1))
        return scores


class Draw(LogitsProcessor):
    """Draws the next token of each row from its softmax, with a generator of the row's own.

    By inversion: with u uniform in [0, 1), the first token whose cumulative probability exceeds u.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = generators

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return scores, shape [batch, vocabulary], that are 0 for the drawn token and -inf for all others.

        Raises:
            NotFiniteError: those of a row make no probabilities.
        """
        precise = torch.float32 if scores.device.type == "mps" else torch.float64  # mps has no float64
        cumulative = torch.softmax(scores.to(precise), dim=-1).cumsum(-1)
        check_finite(cumulative[:, -1])
        uniform = torch.cat([torch.rand(1, generator=generator, dtype=precise) for generator in self.generators])
        threshold = uniform.to(scores.device).unsqueeze(-1) * cumulative[:, -1:]
        drawn = torch.searchsorted(cumulative, threshold, right=True).clamp_max(scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0.0)  # type: ignore[return-value]


class Penalize(LogitsProcessor):
    """Makes what a row has said already less likely, by a row's own prompt and new tokens, and no padding."""

    def __init__(self, prompts: Sequence[Sequence[int]], width: int, penalty: float) -> None:
        """Take the prompts of a batch, the width to which they are padded on the left, and the penalty."""
        self.prompts, self.width, self.penalty = prompts, width, penalty

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return scores, shape [batch, vocabulary], with the penalty."""
        new = input_ids[:, self.width :].tolist()
        return penalized(scores, [[*prompt, *row] for prompt, row in zip(self.prompts, new, strict=True)], self.penalty)  # type: ignore[return-value]


def penalized(logits: torch.Tensor, seen: Sequence[Sequence[int]], penalty: float) -> torch.Tensor:
    """Return logits of which those of seen tokens are divided by the penalty where positive, else multiplied.

    Keskar et al. 2019, "CTRL", section 4.1, as transformers has it.

    Args:
        logits: shape [rows, vocabulary].
        seen: tokens of each row.
        penalty: above 0; 1 changes nothing.
    """
    logits = logits.clone()
    for row, ids in zip(logits, seen, strict=True):
        places = torch.tensor(sorted(set(ids)), device=logits.device)
        own = row[places]
        row[places] = torch.where(own > 0, own / penalty, own * penalty)
    return logits


def own_generator(key: str, seed: int) -> torch.Generator:
    """Return the generator of a request's draws, by its key and the seed of all."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def logits_processors(generation: SamplingParams, generators: Sequence[torch.Generator]) -> LogitsProcessorList:
    """Return what turns greedy choice into sampling; nothing at temperature 0.

    Args:
        generation: temperature, top_p and top_k.
        generators: of the batch's rows.
    """
    processors = LogitsProcessorList()
    if generation.temperature == 0:
        return processors
    processors.append(TemperatureLogitsWarper(generation.temperature))
    if generation.top_k:
        processors.append(TopKLogitsWarper(generation.top_k))
    if generation.top_p < 1:
        processors.append(TopPLogitsWarper(generation.top_p))
    processors.append(Draw(generators))
    return processors


def sampling(generation: SamplingParams) -> tuple[float, float, int, float]:
    """Return what decides how tokens are drawn: rows that have it in common are drawn together."""
    return generation.temperature, generation.top_p, generation.top_k, generation.repetition_penalty


def choose(
    logits: torch.Tensor,
    generations: Sequence[SamplingParams],
    generators: Sequence[torch.Generator],
    seen: Sequence[Sequence[int]],
) -> list[int]:
    """Return the next token of each row.

    Args:
        logits: of the model, shape [rows, vocabulary].
        generations: how each row is drawn.
        generators: of each row.
        seen: tokens of each row so far, the prompt's first.

    Raises:
        NotFiniteError: the logits of a row are NaN or infinite, so that none is the highest.
    """
    logits = logits.float()  # of bfloat16, argmax on a CPU takes five times as long
    alike: dict[tuple[float, float, int, float], list[int]] = {}
    for row, generation in enumerate(generations):
        alike.setdefault(sampling(generation), []).append(row)
    chosen = [0] * len(generations)
    for rows in alike.values():
        own = logits if len(rows) == len(chosen) else logits[rows]
        generation = generations[rows[0]]
        if generation.repetition_penalty != 1:
            own = penalized(own, [seen[row] for row in rows], generation.repetition_penalty)
        processors = logits_processors(generation, [generators[row] for row in rows])
        tokens = processors(None, own).argmax(-1)
        check_finite(own.gather(-1, tokens[:, None]))  # NaN is the highest to argmax
        for row, token in zip(rows, tokens.tolist(), strict=True):
            chosen[row] = token
    return chosen
