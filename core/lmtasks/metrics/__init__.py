"""Metrics: statistics per example, scores with signatures, the tokenizer chosen by the references' language."""

from lmtasks.metrics.language import language_of
from lmtasks.metrics.scoring import CORE, find_metrics, score_samples

__all__ = ["CORE", "find_metrics", "language_of", "score_samples"]
