"""Files and folders that are written completely or not at all, and their hashes."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import pytest

import lmtasks
from lmtasks import files


class Interrupt(BaseException):
    """Ends a process as Ctrl-C does."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full_disk(*_):
    raise OSError("No space left on device")


def test_atomic_write_replaces_a_file(tmp_path):
    for content in (b"old", b"new"):
        files.atomic_write(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_atomic_write_to_a_full_disk_leaves_the_old_content(tmp_path, monkeypatch, function):
    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(files.os, function, full_disk)
    with pytest.raises(OSError, match="No space"):
        files.atomic_write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError, Interrupt])
def test_atomic_folder_that_is_interrupted_leaves_nothing(tmp_path, error):
    with pytest.raises(error), files.atomic_folder(tmp_path / "folder") as folder:
        (folder / "half").write_bytes(b"1")
        raise error
    assert names(tmp_path) == []


def test_atomic_folder_replaces_an_empty_one_and_what_a_kill_left(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / ".folder.part").mkdir()
    (tmp_path / ".folder.part" / "half").write_bytes(b"1")
    with files.atomic_folder(tmp_path / "folder") as folder:
        (folder / "file").write_bytes(b"1")
        assert names(tmp_path / "folder") == []
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["file"]


def test_replace_folder_removes_what_was_there(tmp_path):
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"of-{name}").write_bytes(b"")
    files.replace_folder(tmp_path / "source", tmp_path / "target")
    assert names(tmp_path) == ["target"]
    assert names(tmp_path / "target") == ["of-source"]


def test_sha256_folder_hashes_names_and_contents_of_files_that_count(tmp_path):
    for name in ("b.json", "a/c.safetensors", "README.MD", ".git/config", "a/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    lines = [f"{name}:{hashlib.sha256(name.encode()).hexdigest()}\n" for name in ("a/c.safetensors", "b.json")]
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert files.sha256_folder(tmp_path, ignored_suffixes=(".md",)) == expected
    (tmp_path / "b.json").write_text("another")
    assert files.sha256_folder(tmp_path, ignored_suffixes=(".md",)) != expected


def test_no_other_module_replaces_or_hashes_files():
    core = Path(lmtasks.__file__).parent
    calls = [
        f"{path.relative_to(core)}:{node.lineno}: {ast.unparse(node)}: use lmtasks.files"
        for path in sorted(core.rglob("*.py"))
        if path != Path(files.__file__)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.replace", "os.rename", "hashlib.file_digest")
    ]
    assert not calls, "\n".join(calls)
