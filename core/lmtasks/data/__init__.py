"""Data: reads files and hub data sets into examples; an error in them names file, line and field."""

from lmtasks.data.fewshot import FEWSHOT_SPLITS, FewShot, load_fewshot
from lmtasks.data.files import file_sha256
from lmtasks.data.load import load_dataset
from lmtasks.data.overlap import input_key
from lmtasks.data.predictions import read_predictions
from lmtasks.data.request import EVAL_SPLITS, DataRequest, Dataset, NoSplitError

__all__ = [
    "EVAL_SPLITS",
    "FEWSHOT_SPLITS",
    "DataRequest",
    "Dataset",
    "FewShot",
    "NoSplitError",
    "file_sha256",
    "input_key",
    "load_dataset",
    "load_fewshot",
    "read_predictions",
]
