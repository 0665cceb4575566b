"""Settings of runs, scorings and trainings, composed of groups that they share."""

from lmtasks.options.base import Options, with_changes
from lmtasks.options.groups import (
    BackendName,
    DataOptions,
    Device,
    Dtype,
    FewshotOptions,
    GenerationOptions,
    InferenceOptions,
    ModelOptions,
    OnOverlong,
    PromptOptions,
    Quantize,
)
from lmtasks.options.keywords import RunKeywords, ScoreKeywords, TrainKeywords
from lmtasks.options.run import RunOptions
from lmtasks.options.score import ScoreOptions
from lmtasks.options.train import Optimizer, Schedule, TrainOptions

__all__ = [
    "BackendName",
    "DataOptions",
    "Device",
    "Dtype",
    "FewshotOptions",
    "GenerationOptions",
    "InferenceOptions",
    "ModelOptions",
    "OnOverlong",
    "Optimizer",
    "Options",
    "PromptOptions",
    "Quantize",
    "RunKeywords",
    "RunOptions",
    "Schedule",
    "ScoreKeywords",
    "ScoreOptions",
    "TrainKeywords",
    "TrainOptions",
    "with_changes",
]
