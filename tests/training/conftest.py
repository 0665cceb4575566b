"""Fixtures of the tests of training."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from training_setup import rows, train_whole, write

import lmtasks
from lmtasks.testing import save_tiny_model


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Several threads only wait for each other with matrices this small, and every training collects garbage."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    return {
        "data": write(folder / "train.jsonl", rows(24)),
        "eval_data": write(folder / "test.jsonl", rows(5, 100)),
        "output_dir": folder / "runs",
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, data: dict[str, Path]) -> lmtasks.TrainedAdapter:
    """A training that nothing disturbed."""
    return train_whole(tiny_folder, data, tmp_path_factory.mktemp("adapters") / "whole")


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-plain"
    save_tiny_model(folder, chat=False)
    return folder
