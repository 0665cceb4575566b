"""Data: files and hub sets become examples, and bad data an error that names file, line and field."""

from lmtasks.data.fewshot import TAUGHT, FewShot, load_fewshot
from lmtasks.data.files import file_sha256
from lmtasks.data.identity import identity
from lmtasks.data.load import load_dataset
from lmtasks.data.predictions import read_predictions
from lmtasks.data.request import SCORED, DataRequest, Dataset, NoSplitError

__all__ = [
    "SCORED",
    "TAUGHT",
    "DataRequest",
    "Dataset",
    "FewShot",
    "NoSplitError",
    "file_sha256",
    "identity",
    "load_dataset",
    "load_fewshot",
    "read_predictions",
]
