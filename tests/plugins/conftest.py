from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a plugin on the path as if pip had installed it: a module, and the metadata of its distribution."""
    modules = []

    def write(name: str, code: str, *, version: str = "1.0", requires: str = "") -> None:
        folder = tmp_path_factory.mktemp("installed")
        module = f"lmtasks_{name.replace('-', '_')}"
        modules.append(module)
        (folder / f"{module}.py").write_text(code)
        info = folder / f"{module}-{version}.dist-info"
        info.mkdir()
        needed = f"Requires-Dist: {requires}\n" if requires else ""
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lmtasks-{name}\nVersion: {version}\n{needed}")
        (info / "entry_points.txt").write_text(f"[lmtasks]\n{name} = {module}\n")
        monkeypatch.syspath_prepend(folder)

    yield write
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def write_file(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a file of a plugin."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write
