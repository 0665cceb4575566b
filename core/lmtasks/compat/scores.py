"""Private interfaces of sacrebleu and evaluate; imports neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def corpus_statistics(
    metric: Any, hypotheses: Sequence[str], references: Sequence[Sequence[str | None]]
) -> list[list[float]]:
    """Return the statistics of each segment that a sacrebleu metric adds up to its corpus score.

    Calls `sacrebleu.metrics.base.Metric._extract_corpus_statistics`: `sentence_score` hides some of them.
    """
    statistics: list[list[float]] = metric._extract_corpus_statistics(hypotheses, references)
    return statistics


def score_from_statistics(metric: Any, statistics: Sequence[float]) -> float:
    """Return a sacrebleu metric's score for the sum of segments' statistics.

    Calls `sacrebleu.metrics.base.Metric._compute_score_from_stats`.
    """
    return float(metric._compute_score_from_stats(statistics).score)


def module_hash(module: Any) -> str | None:
    """Return the hash of the code of a metric module of evaluate (`evaluate.EvaluationModule._hash`)."""
    code: str | None = module._hash
    return code
