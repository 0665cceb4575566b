"""Metrics: statistics per example, scores with signatures, the tokenizer chosen by the references' language."""

from lmtasks.metrics.language import language_of
from lmtasks.metrics.output_checks import is_empty
from lmtasks.metrics.protocol import check_metric
from lmtasks.metrics.registry import CORE, check_references, find_metrics, metrics_in_file
from lmtasks.metrics.scoring import MetricResult, measure_outputs, measure_samples, score_outputs, score_samples

__all__ = [
    "CORE",
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
