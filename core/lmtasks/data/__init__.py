"""Data: files and hub sets become examples, and bad data an error that names file, line and field."""

from lmtasks.data.load import DataRequest, Dataset, FewShot, load_dataset, load_fewshot
from lmtasks.data.predictions import read_predictions
from lmtasks.data.rows import file_sha256

__all__ = [
    "DataRequest",
    "Dataset",
    "FewShot",
    "file_sha256",
    "load_dataset",
    "load_fewshot",
    "read_predictions",
]
