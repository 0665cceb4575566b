"""Every flag that takes a path or a text, with values that no file and no record can have."""

from __future__ import annotations

import pytest

from lmtasks.testing import FakeModel

PATHS = {
    "user": "~nosuchuser/x",
    "long": "x" * 300,
    "longer": "a/" * 3000,
    "nul": "a\0b",
    "surrogate": "a\ud800b",
    "empty": "",
}
NEW = ("plugins", "new", "captions", "--summary", "s", "--author", "a")


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmtasks.api.running.load_model", lambda *_, **__: FakeModel(lambda prompt: "x"))


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--plugin", "{}"),
        ("plugins", "list", "--plugin", "{}"),
        ("run", "qa", "--plugin", "{}"),
        ("run", "./{}.yaml"),
        ("show", "{}.py"),
        ("plugins", "check", "{}.py"),
        ("plugins", "check", "{}"),
        (*NEW, "-o", "{}"),
        (*NEW, "--adapter", "{}"),
        ("train", "qa", "--config", "{}"),
        ("train", "qa", "-o", "{}"),
        ("train", "qa", "-o", "adapter", "--output-dir", "{}"),
        ("adapters", "merge", "adapter", "-o", "{}"),
        ("run", "qa", "--output-dir", "{}"),
        ("compare", "qa", "--adapter", "none", "--output-dir", "{}"),
        ("score", "qa", "--output-dir", "{}"),
        ("score", "{}"),
        ("compare", "{}", "{}"),
        ("completion", "{}"),
        ("models", "pull", "{}"),
        ("ask", "qa", "--input", "context=@{}/x", "--input", "question=b"),
    ],
    ids=" ".join,
)
def test_impossible_path_is_one_line(call, tmp_path, arguments, path):
    outcome = call(*(argument.format(path) for argument in arguments))
    assert outcome.code in (1, 2)
    output = outcome.out if arguments[:2] == ("plugins", "check") and not outcome.err else outcome.err
    errors = [line for line in output.splitlines() if not line.startswith(("Usage: ", "Try '"))]
    errors = [line for line in errors if line.strip()]
    if output is outcome.err:
        assert len(errors) == 1
    assert all(len(line) < 2100 for line in errors)
    assert list(tmp_path.iterdir()) == []


def test_home_folder_is_expanded_after_an_equals_sign(call, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # a shell replaces "~" only at the beginning of a word
    outcome = call("run", "qa", "--limit", 1, "--output-dir=~/kept")
    assert outcome.code == 0
    [run] = (tmp_path / "kept").iterdir()
    assert (run / "report.md").is_file()


@pytest.mark.parametrize("flag", ["--stop=a{}", "--set=a{}=b", "--set=a=b{}", "--map=context=a{}"])
@pytest.mark.parametrize("text", ["\udcff", "\ud800"])
def test_text_that_is_not_utf8_is_refused(call, tmp_path, flag, text):
    outcome = call("run", "qa", flag.format(text))
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].endswith(" is not UTF-8")
    assert list(tmp_path.iterdir()) == []


def test_new_plugin_prints_commands_that_a_shell_can_run(call):
    outcome = call(*NEW, "-o", "a b'c\n\x1b[5n")
    assert outcome.code == 0
    assert "pip install -e 'a b'\"'\"'c\\n\\u001b[5n[test]'" in outcome.err
    assert len(outcome.out.splitlines()) == 7
