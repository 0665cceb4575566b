from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmtasks.testing import save_tiny_model

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several torch processes on the same cores slow each other down: their threads wait by spinning.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny chat model of the Llama family, in transformers format."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    save_tiny_model(folder)
    return folder


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for a hub that may not be there."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def evaluate_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of its own for what evaluate keeps on disk; its modules are imported from there."""
    import evaluate

    folder, path = tmp_path_factory.mktemp("evaluate"), list(sys.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_METRICS_CACHE", folder / "metrics")
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", folder / "modules")
        yield folder
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition(".")[0] == "evaluate_modules"]:
        del sys.modules[name]  # the next file has another folder
