"""The vocabulary of lmtasks as types: tasks and their parts, samples, metrics and scores.

It imports the standard library only, so that plugins are imported quickly.
"""

from __future__ import annotations

from lmtasks.task.output import Generate, Output, SamplingParams
from lmtasks.task.parameter import Parameter
from lmtasks.task.prompt import Field, Prompt
from lmtasks.task.sample import Example, LogLikelihood, Sample
from lmtasks.task.score import Measurement, Metric, Score, ScoreSpec
from lmtasks.task.source import DataFile, DataFunction, DataSource, HubDataset
from lmtasks.task.task import TASK_NAME, Task
from lmtasks.task.validate import as_tuple

__all__ = [
    "TASK_NAME",
    "DataFile",
    "DataFunction",
    "DataSource",
    "Example",
    "Field",
    "Generate",
    "HubDataset",
    "LogLikelihood",
    "Measurement",
    "Metric",
    "Output",
    "Parameter",
    "Prompt",
    "Sample",
    "SamplingParams",
    "Score",
    "ScoreSpec",
    "Task",
    "as_tuple",
]
