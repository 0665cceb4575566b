"""The words of lmtasks as types: what a task is made of, what a run records, what a metric returns.

Standard library only, so that a plugin that imports it starts at once.
"""

from __future__ import annotations

from lmtasks.task.parameter import Parameter
from lmtasks.task.prompt import Field, Generation, Prompt
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
    "Generation",
    "HubDataset",
    "LogLikelihood",
    "Measurement",
    "Metric",
    "Parameter",
    "Prompt",
    "Sample",
    "Score",
    "ScoreSpec",
    "Task",
    "as_tuple",
]
