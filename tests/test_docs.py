"""What the documents show works: code blocks run, commands and flags exist."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

import lmtasks
import lmtasks.testing
from lmtasks import (
    DataFile,
    DataFunction,
    Example,
    Field,
    Generate,
    HubDataset,
    LogLikelihood,
    Measurement,
    Parameter,
    Prompt,
    Sample,
    ScoreSpec,
    Task,
    hookspecs,
)
from lmtasks.cli.main import COMMANDS, cli, main
from lmtasks.cli.settings import training_settings
from lmtasks.metrics import BUILTIN_METRICS
from lmtasks.models import CATALOG
from lmtasks.options import TrainOptions
from lmtasks.parsers import PARSERS
from lmtasks.plugins import Registry
from lmtasks.plugins.yaml_schema import task_schema

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    *("README.md", "CONTRIBUTING.md", "plugins/README.md", "benchmarks/README.md"),
    *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").glob("*.md"))),
]


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(), re.DOTALL | re.MULTILINE)


def shown_commands() -> list[tuple[str, str]]:
    lines = [
        (document, line) for document in DOCUMENTS for block in blocks(document, "bash") for line in block.split("\n")
    ]
    return [(document, line.partition("#")[0].strip()) for document, line in lines if line.startswith("lmtasks ")]


def command_named(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


@pytest.mark.parametrize(("document", "line"), shown_commands())
def test_commands_in_the_documents_exist_with_their_flags(document: str, line: str):
    words = shlex.split(re.split(r" && | > ", line)[0])[1:]
    command: click.Command = cli
    while isinstance(command, click.Group):
        name = words.pop(0)
        child = command.get_command(click.Context(command), name)
        assert child is not None, f"{document}: no command {name}"
        command = child
    # Parses as click would, without running: an unknown flag or a missing argument raises.
    with command.make_context("lmtasks", list(words), parent=click.Context(cli, **cli.context_settings)):
        pass


def test_readme_names_every_command_task_and_model():
    text = (ROOT / "README.md").read_text()
    for name in COMMANDS:
        assert f"lmtasks {name}" in text
    for name in CATALOG:
        assert f"`{name}`" in text
    for plugin in ("summarization", "translation", "qa", "email-reply"):
        for task in Registry().load(plugin).tasks:
            variant = task.removeprefix("translation/")
            # The pairs with English are named by their other language.
            pair = re.fullmatch(r"en-(..)|(..)-en", variant)
            other = pair and (pair[1] or pair[2])
            assert f"`{task}`" in text or f"`{variant}`" in text or f"`{other}`" in text


def test_readme_holds_the_two_set_up_commands():
    text = (ROOT / "README.md").read_text()
    assert "\npip install -c constraints.txt . && lmtasks run summarization\n" in text
    assert "\npip install -c constraints.txt -e '.[test]' && pytest\n" in text


@pytest.mark.slow
def test_readme_python_runs_on_a_tiny_model(tiny_folder: Path, tmp_path: Path):
    (code,) = blocks("README.md", "python")
    code = code.replace("limit=5", f"limit=1, max_new_tokens=4, model={str(tiny_folder)!r}")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("rouge1 ")


@pytest.mark.slow
def test_fine_tuning_python_runs_on_a_tiny_model(tiny_folder: Path, tmp_path: Path):
    (code,) = blocks("docs/fine-tuning.md", "python")
    tiny = f"max_new_tokens=4, model={str(tiny_folder)!r}"
    code = code.replace("eval_limit=2", f"eval_limit=2, {tiny}").replace("limit=1)", f"limit=1, {tiny})")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "significant" in done.stdout or "score the same" in done.stdout
    assert len(list((tmp_path / "runs").iterdir())) == 3


def test_fine_tuning_settings_are_valid(tmp_path: Path):
    (text,) = blocks("docs/fine-tuning.md", "yaml")
    (tmp_path / "settings.yaml").write_text(text)
    options, model = training_settings(tmp_path / "settings.yaml", {"seed": 1, "rank": None})
    assert (model, options.rank, options.learning_rate, options.seed) == ("smollm2-135m-instruct", 32, 3e-4, 1)


def test_fine_tuning_settings_have_their_defaults():
    text = (ROOT / "docs/fine-tuning.md").read_text()
    table = re.findall(r"^\| (`.*?`) \| ", text, re.MULTILINE)
    named = [name for cell in table for name in re.findall(r"`(\w+)`", cell)]
    known = {field.name for field in dataclasses.fields(TrainOptions)}
    assert named and set(named) <= known
    others = {"task", "output", "model", "config", "plan_only", "resume", "as_json", "verbose", "plugin", "no_plugin"}
    assert {option.name for option in command_named("train").params} <= known | others


def test_scores_page_is_up_to_date():
    script = ROOT / "benchmarks/quality/formulas.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_readme_names_every_metric():
    text = (ROOT / "README.md").read_text()
    for name in BUILTIN_METRICS:
        assert f"`{name}`" in text or name in ("loglikelihood", "perplexity"), name


def test_reference_has_all_hooks_and_public_names():
    text = (ROOT / "docs/plugin-reference.md").read_text()
    for name, value in vars(hookspecs).items():
        if inspect.isfunction(value):
            assert f"\n### {name}\n" in text
    assert f"version {hookspecs.API_VERSION}\n" in text
    public = [*lmtasks.__all__, *lmtasks.testing.__all__, *(name for name in PARSERS if name != "strip")]
    assert not [name for name in public if f"`{name}`" not in text]


def test_reference_has_all_members_of_a_metric():
    text = (ROOT / "docs/plugin-reference.md").read_text()
    [part] = re.findall(r"^## Metric\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    assert not [name for name in ("name", "measure", "check", "check_references", "label") if f"`{name}" not in part]


@pytest.mark.parametrize(
    ("kind", "section"),
    [
        *((kind, kind.__name__) for kind in (Task, Field, Prompt, Generate, Parameter)),
        *((kind, "Data") for kind in (DataFile, HubDataset, DataFunction, Example)),
        *((kind, "Metric") for kind in (Measurement, ScoreSpec, Sample, LogLikelihood)),
    ],
)
def test_reference_has_all_fields(kind: type, section: str):
    text = (ROOT / "docs/plugin-reference.md").read_text()
    [part] = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    missing = [name for name in inspect.signature(kind).parameters if not re.search(rf"\b{name}\b", part)]
    assert not missing


def test_reference_has_all_keys_of_a_yaml_task():
    text = (ROOT / "docs/plugin-reference.md").read_text()
    schema = task_schema()
    for part in (schema, *schema["$defs"].values()):
        assert not [key for key in part["properties"] if f"`{key}`" not in text]


NOT_OURS = ("pip ", "pytest ", "python ", "twine ")
"""Commands of other programs, which fetch or publish packages; what `plugins new` writes is tested elsewhere."""
WITH_A_MODEL = ("run", "show", "ask", "train")


def files_of(document: str) -> dict[str, str]:
    """The files that a page shows: the block behind each paragraph that ends in a name in backticks and a colon."""
    text = (ROOT / document).read_text()
    parts = re.findall(r"`([\w-]+\.[\w.-]+)`[^`\n]*:\n\n```\w+\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    files: dict[str, str] = {}
    for name, content in parts:
        # A further block for a file is what is added to it.
        files[name] = f"{files[name]}\n\n{content}" if name in files else content
    return files


@pytest.mark.parametrize("document", ["plugins/README.md", "docs/your-own-data.md"])
def test_files_and_commands_of_a_page_work(
    document: str,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    for name, content in files_of(document).items():
        (tmp_path / name).write_text(content)
    lines = [line.partition("  #")[0].strip() for block in blocks(document, "bash") for line in block.splitlines()]
    ours = [line for line in lines if line and not line.startswith(NOT_OURS)]
    assert len(ours) > 3
    for line in ours:
        words, arrow, target = line.partition(" > ")
        command = shlex.split(words)[1:]
        if command[0] in WITH_A_MODEL:
            command += ["--model", str(tiny_folder)]
        if command[0] in ("run", "ask"):
            command += ["--max-new-tokens", "4"]
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main(command)
        written = capsys.readouterr()
        assert exit.value.code == 0, f"{line}\n{written.err}"
        if arrow:
            (tmp_path / target).write_text(written.out)
        if command[:2] == ["plugins", "new"]:
            monkeypatch.syspath_prepend(install(tmp_path / "lmtasks-headlines"))


def install(folder: Path) -> str:
    """Write the metadata of a package as an editable install would, and return the folder for the path."""
    import tomllib

    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    entries = "\n".join(f"{name} = {module}" for name, module in project["entry-points"]["lmtasks"].items())
    (info / "entry_points.txt").write_text(f"[lmtasks]\n{entries}\n")
    return str(folder)


def test_tutorial_entry_point_equals_that_of_a_new_plugin(tmp_path: Path):
    from lmtasks.plugins.scaffold import NewPlugin, write_plugin

    write_plugin(NewPlugin(name="headlines", summary="S.", author="A"), tmp_path / "new")
    (lines,) = blocks("plugins/README.md", "toml")
    assert lines in (tmp_path / "new" / "pyproject.toml").read_text()


@pytest.mark.slow
def test_tutorial_tests_pass(tmp_path: Path):
    for name, content in files_of("plugins/README.md").items():
        (tmp_path / name).write_text(content)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_titles.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_tutorial_plugin_has_less_than_40_lines():
    assert len(blocks("plugins/README.md", "python")[0].splitlines()) < 40


def test_security_page_names_existing_tests():
    page = (ROOT / "docs/security.md").read_text()
    named = re.findall(r"`(test_\w+)`", page)
    defined = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 40
    assert not [name for name in named if f"def {name}(" not in defined]
    assert all((ROOT / file).is_file() for file in re.findall(r"`(tests/\S+\.py)`", page))
