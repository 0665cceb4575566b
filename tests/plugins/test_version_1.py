"""A plugin package that was built for version 1 of the interface works.

The wheel in tests/data uses each hook, name, argument and YAML key of docs/plugin-reference.md. From the first release
on it is not built again, and later additions are tested elsewhere: a change that breaks these tests breaks the plugins
of others.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

import lmtasks
import lmtasks.testing
from lmtasks.cli.main import cli

WHEEL = Path(__file__).parents[1] / "data" / "lmtasks_recipes-1.0.0-py3-none-any.whl"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder of `sys.path` with the files that pip would install."""
    folder = tmp_path / "installed"
    with zipfile.ZipFile(WHEEL) as wheel:
        wheel.extractall(folder)
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "lmtasks_recipes"]:
        del sys.modules[name]


@pytest.fixture
def checks(installed: Path) -> ModuleType:
    """Return the tests of the package."""
    return import_module("lmtasks_recipes.checks")


@pytest.mark.slow
def test_version_1_tasks_pass_the_checks(checks: ModuleType):
    checks.check_tasks()


def test_version_1_runs_scores_and_comparisons_work(checks: ModuleType, tmp_path: Path):
    checks.check_runs(tmp_path / "runs")


@pytest.mark.slow
def test_version_1_models_generate_and_train(checks: ModuleType, tmp_path: Path):
    checks.check_models(tmp_path)


def test_version_1_errors_are_lmtasks_errors(checks: ModuleType):
    checks.check_errors()


@pytest.mark.slow
def test_version_1_plugin_is_listed_and_checked(installed: Path):
    listed = CliRunner().invoke(cli, ["plugins", "list"])
    [line] = [line.split() for line in listed.stdout.splitlines() if line.startswith("recipes ")]
    assert line[1:5] == ["lmtasks-recipes", "1.0.0", "lmtasks_recipes", "ok"]
    checked = CliRunner().invoke(cli, ["plugins", "check", "recipes"])
    assert checked.exit_code == 0, checked.output


@pytest.mark.slow
def test_version_1_uses_nothing_deprecated(installed: Path):
    code = "import lmtasks_recipes.checks; lmtasks_recipes.checks.check_tasks()"
    command = [sys.executable, "-W", "error::lmtasks.errors.DeprecatedWarning", "-c", code]
    done = subprocess.run(command, cwd=installed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version_1_uses_all_public_names(installed: Path):
    """All public names are used, so that they are kept; a name of a later release is added to `later`."""
    used: dict[str, set[str]] = {}
    for file in (installed / "lmtasks_recipes").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                used.setdefault(node.module, set()).update(item.name for item in node.names)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lmtasks":
                used["lmtasks"].add(node.attr)
    later: set[str] = set()
    assert used["lmtasks"] | later == set(lmtasks.__all__)
    assert used["lmtasks.testing"] == set(lmtasks.testing.__all__)
    assert used["lmtasks.parsers"] == {"first_line", "last_line", "first_paragraph"}
    assert {name for name in used if name.partition(".")[0] == "lmtasks"} == {
        "lmtasks",
        "lmtasks.testing",
        "lmtasks.parsers",
    }
