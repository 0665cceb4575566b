"""What a user may write where a path is expected."""

from pathlib import Path

import pytest

from lmtasks.errors import PathError
from lmtasks.paths import user_path


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("", "the name is empty"),
        ("~nosuchuser/data.jsonl", '"~nosuchuser" is the home folder of no known user'),
        ("~nosuchuser", '"~nosuchuser" is the home folder of no known user'),
        ("x" * 256, "256 bytes"),
        # Bytes count, not characters; and the part that is too long may stand in folders that are not there yet.
        ("no/such/folder/" + "é" * 128 + "/data.jsonl", "256 bytes"),
        ("folder/" * 2000, "the whole path is too long"),
        ("a\0b.jsonl", "NUL character"),
        ("a\ud800b.jsonl", "half a surrogate pair"),
    ],
)
def test_user_path_refuses_impossible_paths_in_one_short_line(written: str, says: str):
    with pytest.raises(PathError) as caught:
        user_path(written, "data file")
    message = str(caught.value)
    assert message.startswith("data file")
    assert says in message
    assert "\n" not in message
    assert "\0" not in message
    assert len(message) < 250
    message.encode("utf-8")


def test_user_path_refuses_loops_of_symbolic_links(tmp_path: Path):
    (tmp_path / "a").symlink_to(tmp_path / "a")
    with pytest.raises(PathError, match="symbolic links"):
        user_path(tmp_path / "a", "model")


def test_user_path_refuses_folder_that_may_not_be_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)  # root may search every folder, so the refusal is played
    with pytest.raises(PathError, match="cannot be looked up: Permission denied"):
        user_path(tmp_path / "data.jsonl", "data file")


@pytest.mark.parametrize("written", ["x" * 255, "no/such/file.jsonl", "/dev/null/under-a-file", "odd \udcff name"])
def test_user_path_returns_missing_path_as_written(written: str):
    path = user_path(written, "output folder")
    assert path == Path(written)
    assert not path.exists()


def test_user_path_takes_tilde_for_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/data.jsonl", "data file") == tmp_path / "data.jsonl"
