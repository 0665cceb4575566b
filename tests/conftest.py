from __future__ import annotations

from pathlib import Path

import pytest

from lmtasks.testing import save_tiny_model


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
