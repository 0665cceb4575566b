"""The words of the project in docstrings, comments, messages, names and pages, and the packages in CONTRIBUTING."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from lmtasks.cli.main import COMMANDS, cli

ROOT = Path(__file__).parents[1]
SOURCES = [
    path
    for folder in ("core/lmtasks", "plugins/lmtasks_plugins", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "plugins/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "benchmarks").rglob("*.md")),
]
WORDS = re.compile(r"\b(hears?|the door|under way|told|tell whether|likewise)\b", re.IGNORECASE)
"""Words that readers stumble over; CONTRIBUTING quotes none of them."""
NAMES = frozenset({"found", "own", "at", "place"})
"""Names that say nothing of what a variable holds."""


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def shown(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def documented(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the docstrings of modules, classes, functions and attributes: texts that stand alone as a statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each string and comment of a file, line by line."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT) or tokenize.tok_name[token.type] == "FSTRING_MIDDLE":
            for offset, line in enumerate(token.string.split("\n")):
                yield token.start[0] + offset, line


def names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the names that assignments, loops, `with`, imports and parameters bind."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{path} {name}")


def check(problems: list[str]) -> None:
    assert not problems, f"{len(problems)} places:\n" + "\n".join(problems)


def test_docstrings_do_not_begin_with_of() -> None:
    check(
        [
            f"{shown(path, line)}: say what it is, without the line above: {text.strip()[:60]!r}"
            for path in SOURCES
            for line, text in documented(tree_of(path))
            if re.match(r"\s*of\b", text, re.IGNORECASE)
        ]
    )


def test_help_does_not_begin_with_of() -> None:
    context = click.Context(cli)
    problems = []
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        for path, each in commands(command, name):
            helps = [(path, each.help or "")]
            helps += [(f"{path} {option.opts[0]}", getattr(option, "help", None) or "") for option in each.params]
            problems += [f"lmtasks {what}: {text!r}" for what, text in helps if re.match(r"of\b", text, re.IGNORECASE)]
            problems += [f"lmtasks {what}: {text!r}" for what, text in helps if WORDS.search(text)]
    check(problems)


def test_sources_use_plain_words() -> None:
    check(
        [
            f"{shown(path, line)}: {match[0]!r} in {text.strip()[:80]!r}"
            for path in SOURCES
            for line, text in texts(path)
            if (match := WORDS.search(text))
        ]
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_use_plain_words(page: Path) -> None:
    check(
        [
            f"{shown(page, number)}: {match[0]!r} in {line.strip()[:80]!r}"
            for number, line in enumerate(page.read_text("utf-8").split("\n"), start=1)
            if (match := WORDS.search(line))
        ]
    )


def test_variables_have_the_name_of_what_they_hold() -> None:
    check(
        [
            f"{shown(path, line)}: {name}: name what it holds (task, match, index, position, ...)"
            for path in SOURCES
            if "benchmarks" not in path.parts
            for line, name in names(tree_of(path))
            if name in NAMES
        ]
    )


# The map of the tree in CONTRIBUTING


def configuration() -> dict[str, dict]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]


def rooms() -> list[tuple[str, str]]:
    """Return the first and the last cell of each row in CONTRIBUTING's table of packages, names without backquotes."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    table = re.search(r"^\| package \|.*?\n\n", text, re.DOTALL | re.MULTILINE)
    assert table, "CONTRIBUTING.md has no table that begins with | package |"
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table[0].strip().split("\n")[2:]]
    return [(cells[0], cells[-1]) for cells in rows]


def test_contributing_lists_the_layers_of_pyproject_in_their_order() -> None:
    (contract,) = [each for each in configuration()["importlinter"]["contracts"] if each["type"] == "layers"]
    layers = [frozenset(re.findall(r"\w+", layer)) for layer in contract["layers"]]
    written = [re.findall(r"`(\w+)[./`]", first) for first, _ in rooms()]
    assert all(written), "each row of the table begins with the names of its modules in backquotes"
    assert {name for names in written for name in names} == set().union(*layers)
    position = {name: index for index, layer in enumerate(layers) for name in layer}
    order = [position[name] for names in written for name in names]
    assert order == sorted(order), "rows stand in the order of the layers in pyproject.toml"


def test_contributing_and_pyproject_name_modules_that_exist() -> None:
    core = ROOT / "core" / "lmtasks"
    exist = {path.stem for path in core.iterdir() if path.is_dir() or path.suffix == ".py"}
    exist -= {"__init__", "__main__", "__pycache__", "py"}
    written = {name for first, _ in rooms() for name in re.findall(r"`(\w+)[./`]", first)}
    assert written == exist
    missing = []
    for pattern, rules in configuration()["ruff"]["lint"]["per-file-ignores"].items():
        if "TID253" in rules and pattern.startswith("core/"):
            head, _, rest = pattern.partition("{")
            stems, _, tail = rest.partition("}")
            files = [f"{head}{stem}{tail}" for stem in stems.split(",")] if rest else [pattern]
            missing += [file for file in files if not (ROOT / file).is_file()]
    assert not missing, "pyproject.toml allows heavy imports in files that do not exist"


def test_contributing_names_the_modules_with_heavy_imports() -> None:
    """Modules that may import torch and the like at the top stand in the last column, with those of pyproject."""
    allowed: dict[str, set[str]] = {}
    for pattern, rules in configuration()["ruff"]["lint"]["per-file-ignores"].items():
        if "TID253" in rules and pattern.startswith("core/lmtasks/"):
            package, _, files = pattern.removeprefix("core/lmtasks/").partition("/")
            allowed.setdefault(package, set()).update(re.findall(r"(\w+)(?=[,}]|\.py)", files))
    written = {
        name: set(re.findall(r"`(\w+)`", last))
        for first, last in rooms()
        for name in re.findall(r"`(\w+)[./`]", first)
        if "`" in last
    }
    assert written == allowed


def test_contributing_explains_every_term_of_ours() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    glossary = text.partition("## Glossary")[2].partition("\n## ")[0]
    terms = set(re.findall(r"^\| \*\*(.+?)\*\* \|", glossary, re.MULTILINE))
    assert {
        *("task", "plugin", "example", "bundled adapter", "run folder", "sample", "output checks", "bound task"),
        *("isolation", "prefix sharing", "data check", "plain form", "signature", "gate"),
    } <= terms
