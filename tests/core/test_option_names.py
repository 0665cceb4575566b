"""Options in messages: as Python has them, and as flags where a command runs."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest

import lmtasks
from lmtasks import api
from lmtasks.cli.flags import flag
from lmtasks.cli.main import COMMANDS, cli
from lmtasks.errors import LmtasksError, UsageError, keyword, option, spell_options
from lmtasks.options import RunOptions, ScoreOptions, TrainOptions
from lmtasks.testing import FakeModel

BUILTIN_METRICS = Path(lmtasks.__file__).parent
SWITCHED = re.compile(r"(?<![\w-])(--[a-z][a-z-]*|-o)\b")
"""A flag within a text."""


def library_trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(BUILTIN_METRICS.rglob("*.py")):
        if "cli" not in path.relative_to(BUILTIN_METRICS).parts and "template" not in path.parts:
            yield path, ast.parse(path.read_text("utf-8"))


def docstrings(tree: ast.Module) -> set[int]:
    """Return the ids of strings that stand alone as a statement."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }


def messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each string; expressions within it are "{}"."""
    skipped = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(map(str, parts))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.lineno, node.value


def named_options() -> set[str]:
    return {
        str(ast.literal_eval(node.args[0]))
        for _, tree in library_trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", None) == "option"
        and isinstance(node.args[0], ast.Constant)
    }


def flags_of(command: click.Command) -> set[str]:
    names = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for child in getattr(command, "commands", {}).values():
        names |= flags_of(child)
    return names


@pytest.mark.parametrize(
    ("name", "value", "python", "command"),
    [
        ("max_new_tokens", None, "max_new_tokens", "--max-new-tokens"),
        ("dtype", "float32", "dtype='float32'", "--dtype float32"),
        ("trust_remote_code", True, "trust_remote_code=True", "--trust-remote-code"),
        ("columns", {"text": "COLUMN"}, "columns={'text': 'COLUMN'}", "--map text=COLUMN"),
        ("columns", {"text": "a b"}, "columns={'text': 'a b'}", "--map 'text=a b'"),
        ("metrics", ["bleu", "chrf"], "metrics=['bleu', 'chrf']", "--metrics bleu,chrf"),
        ("output", None, "output", "-o"),
        ("chat_template_date", None, "chat_template_date", "--template-date"),
    ],
)
def test_option_is_written_as_its_reader_writes_it(name: str, value: object, python: str, command: str) -> None:
    assert option(name, value) == python
    with spell_options(flag):
        assert option(name, value) == command
    assert option(name, value) == python


def test_options_in_messages_exist_in_python_and_on_the_command_line() -> None:
    used = named_options()
    assert {"kv_cache_gib", "quantize", "columns", "output_dir"} <= used
    parameters = {field.name for options in (RunOptions, ScoreOptions, TrainOptions) for field in fields(options)}
    for function in vars(api).values():
        if inspect.isfunction(function):
            parameters |= set(inspect.signature(function).parameters)
    context = click.Context(cli)
    flags = set().union(*(flags_of(cli.get_command(context, name)) for name in COMMANDS))
    assert not used - parameters
    assert not {flag(name) for name in used} - flags


def test_messages_of_the_library_hold_no_flags() -> None:
    """Plugin files have no option in Python: messages name the environment variable beside the flag."""
    wrong = []
    for path, tree in library_trees():
        for line, text in messages(tree):
            # Commands in backquotes are typed as they stand; a text that is one flag is an argument of a program.
            shown = re.sub(r"`lmtasks [^`]*`?|^lmtasks .*", "", text)
            for match in SWITCHED.finditer(shown):
                if match[0] != text.partition("=")[0] and "LMTASKS_" not in text:
                    wrong.append(f"{path.relative_to(BUILTIN_METRICS)}:{line}: {match[0]}: use lmtasks.errors.option")
    assert not wrong, "\n".join(wrong)


def test_error_names_an_option_in_python_without_dashes() -> None:
    with pytest.raises(UsageError, match="^max_new_tokens must be at least 1") as error:
        lmtasks.run("qa", max_new_tokens=0)
    assert "--" not in str(error.value)


@pytest.mark.parametrize("spelled", ["output_dir", "--output-dir"])
def test_path_in_a_message_stays_as_it_is(tmp_path: Path, spelled: str) -> None:
    """A file may have the name of an option."""
    path = tmp_path / "output_dir" / "--output-dir"
    path.parent.mkdir()
    path.write_text("a file")
    with spell_options(flag if spelled.startswith("-") else keyword), pytest.raises(LmtasksError) as error:
        lmtasks.run("qa", output_dir=path, limit=1, model=FakeModel(["a"]))
    assert str(path) in str(error.value)
    assert f"choose another with {spelled}" in str(error.value)
