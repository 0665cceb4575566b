"""Metrics: statistics per example, scores with signatures, tokenizers by the language of the references."""

from lmtasks.metrics.language import language_of
from lmtasks.metrics.output_checks import is_empty
from lmtasks.metrics.registry import BUILTIN_METRICS, check_metric, check_references, find_metrics, metrics_in_file
from lmtasks.metrics.scoring import MetricResult, measure_outputs, measure_samples, score_outputs, score_samples

__all__ = [
    "BUILTIN_METRICS",
    "MetricResult",
    "check_metric",
    "check_references",
    "find_metrics",
    "is_empty",
    "language_of",
    "measure_outputs",
    "measure_samples",
    "metrics_in_file",
    "score_outputs",
    "score_samples",
]
