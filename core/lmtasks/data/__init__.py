"""Data: files and hub sets become examples, and bad data an error that names file, line and field."""

from lmtasks.data.load import DataRequest, Dataset, FewShot, load_dataset, load_fewshot

__all__ = ["DataRequest", "Dataset", "FewShot", "load_dataset", "load_fewshot"]
