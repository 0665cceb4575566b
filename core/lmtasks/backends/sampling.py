"""Sampling in which an example's text depends on its own seed, and on no neighbour in the batch."""

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
    """A logits processor that refuses logits from which no token can be chosen."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return scores, shape [batch, vocabulary], unchanged.

        Raises:
            NotFiniteError: the highest of a row is NaN or infinite.
        """
        check_finite(scores.amax(-1))
        return scores


class Draw(LogitsProcessor):
    """A logits processor that draws each row's next token from its softmax, with the row's own generator.

    By inversion: with u uniform in [0, 1), the first token whose cumulative probability exceeds u.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = generators

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return scores, shape [batch, vocabulary], that are 0 for the drawn token and -inf for all others.

        Raises:
            NotFiniteError: the softmax of a row is not finite.
        """
        precise = torch.float32 if scores.device.type == "mps" else torch.float64  # mps has no float64
        cumulative = torch.softmax(scores.to(precise), dim=-1).cumsum(-1)
        check_finite(cumulative[:, -1])
        uniform = torch.cat([torch.rand(1, generator=generator, dtype=precise) for generator in self.generators])
        threshold = uniform.to(scores.device).unsqueeze(-1) * cumulative[:, -1:]
        drawn = torch.searchsorted(cumulative, threshold, right=True).clamp_max(scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn, 0.0)  # type: ignore[return-value]


class Penalize(LogitsProcessor):
    """A logits processor for the repetition penalty over each row's own prompt and new tokens, without padding."""

    def __init__(self, prompts: Sequence[Sequence[int]], width: int, penalty: float) -> None:
        """Create the processor of a batch.

        Args:
            prompts: token ids of each row's prompt.
            width: width to which they are padded on the left.
            penalty: as for `penalized`.
        """
        self.prompts, self.width, self.penalty = prompts, width, penalty

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return scores, shape [batch, vocabulary], after the penalty."""
        new = input_ids[:, self.width :].tolist()
        return penalized(scores, [[*prompt, *row] for prompt, row in zip(self.prompts, new, strict=True)], self.penalty)  # type: ignore[return-value]


def penalized(logits: torch.Tensor, seen: Sequence[Sequence[int]], penalty: float) -> torch.Tensor:
    """Return logits in which those of seen tokens are divided by the penalty where positive, else multiplied.

    Keskar et al. 2019, "CTRL", section 4.1, as transformers has it.

    Args:
        logits: shape [rows, vocabulary].
        seen: token ids of each row.
        penalty: above 0; 1 changes nothing.
    """
    logits = logits.clone()
    for row, ids in zip(logits, seen, strict=True):
        tokens = torch.tensor(sorted(set(ids)), device=logits.device)
        scores = row[tokens]
        row[tokens] = torch.where(scores > 0, scores / penalty, scores * penalty)
    return logits


def request_generator(key: str, seed: int) -> torch.Generator:
    """Return the random generator of a request, by its key and the seed of all."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def logits_processors(generation: SamplingParams, generators: Sequence[torch.Generator]) -> LogitsProcessorList:
    """Return the processors that turn greedy choice into sampling; none at temperature 0.

    Args:
        generation: temperature, top_p and top_k.
        generators: one for each row of the batch.
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


def sampling_settings(generation: SamplingParams) -> tuple[float, float, int, float]:
    """Return the settings that decide how tokens are drawn: rows that share them are drawn together."""
    return generation.temperature, generation.top_p, generation.top_k, generation.repetition_penalty


def choose(
    logits: torch.Tensor,
    generations: Sequence[SamplingParams],
    generators: Sequence[torch.Generator],
    seen: Sequence[Sequence[int]],
) -> list[int]:
    """Return the next token of each row.

    Args:
        logits: the model's logits, shape [rows, vocabulary].
        generations: settings of each row.
        generators: random generator of each row.
        seen: token ids of each row so far, prompt included.

    Raises:
        NotFiniteError: the logits of a row are NaN or infinite, so that none is the highest.
    """
    logits = logits.float()  # argmax of bfloat16 takes five times as long on a CPU
    groups: dict[tuple[float, float, int, float], list[int]] = {}
    for row, generation in enumerate(generations):
        groups.setdefault(sampling_settings(generation), []).append(row)
    chosen = [0] * len(generations)
    for rows in groups.values():
        scores = logits if len(rows) == len(chosen) else logits[rows]
        generation = generations[rows[0]]
        if generation.repetition_penalty != 1:
            scores = penalized(scores, [seen[row] for row in rows], generation.repetition_penalty)
        processors = logits_processors(generation, [generators[row] for row in rows])
        tokens = processors(None, scores).argmax(-1)
        check_finite(scores.gather(-1, tokens[:, None]))  # NaN is the highest to argmax
        for row, token in zip(rows, tokens.tolist(), strict=True):
            chosen[row] = token
    return chosen
