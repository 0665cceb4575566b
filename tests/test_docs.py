"""What the documents show works: code blocks run, commands and flags exist."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from lmtasks import hookspecs
from lmtasks.cli.main import COMMANDS, cli
from lmtasks.cli.settings import training_settings
from lmtasks.metrics import CORE
from lmtasks.model import CATALOGUE
from lmtasks.plugins import Registry
from lmtasks.training import TrainOptions

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
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


@pytest.mark.parametrize(("document", "line"), shown_commands())
def test_a_command_in_the_documents_exists_with_its_flags(document: str, line: str):
    words = shlex.split(line.partition(" && ")[0])[1:]
    command: click.Command = cli
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"{document}: no command {name}"
        command = found
    # Parses as click would, without running: an unknown flag or a missing argument raises.
    command.make_context("lmtasks", list(words))


def test_readme_names_every_command_task_and_model():
    text = (ROOT / "README.md").read_text()
    for name in COMMANDS:
        assert f"lmtasks {name}" in text
    for name in CATALOGUE:
        assert f"`{name}`" in text
    for plugin in ("summarization", "translation", "qa", "email-reply"):
        for task in Registry().load(plugin).tasks:
            variant = task.removeprefix("translation/")
            # The pairs with English are told by their other language.
            pair = re.fullmatch(r"en-(..)|(..)-en", variant)
            other = pair and (pair[1] or pair[2])
            assert f"`{task}`" in text or f"`{variant}`" in text or f"`{other}`" in text


def test_readme_holds_the_two_set_up_commands():
    text = (ROOT / "README.md").read_text()
    assert "\npip install -c constraints.txt . && lmtasks run summarization\n" in text
    assert "\npip install -c constraints.txt -e '.[test]' && pytest\n" in text


def test_readmes_python_runs_on_a_tiny_model(tiny_folder: Path, tmp_path: Path):
    (code,) = blocks("README.md", "python")
    code = code.replace("limit=5", f"limit=1, max_new_tokens=4, model={str(tiny_folder)!r}")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("rouge1 ")


def test_the_python_of_the_page_on_fine_tuning_runs_on_a_tiny_model(tiny_folder: Path, tmp_path: Path):
    (code,) = blocks("docs/fine-tuning.md", "python")
    tiny = f"max_new_tokens=4, model={str(tiny_folder)!r}"
    code = code.replace("eval_limit=2", f"eval_limit=2, {tiny}").replace("limit=1)", f"limit=1, {tiny})")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "significant" in done.stdout or "score the same" in done.stdout
    assert len(list((tmp_path / "runs").iterdir())) == 3


def test_the_settings_of_the_page_on_fine_tuning_are_settings(tmp_path: Path):
    (text,) = blocks("docs/fine-tuning.md", "yaml")
    (tmp_path / "settings.yaml").write_text(text)
    options, model = training_settings(tmp_path / "settings.yaml", {"seed": 1, "rank": None})
    assert (model, options.rank, options.learning_rate, options.seed) == ("smollm2-135m-instruct", 32, 3e-4, 1)


def test_the_page_on_fine_tuning_names_settings_with_their_defaults():
    text = (ROOT / "docs/fine-tuning.md").read_text()
    table = re.findall(r"^\| (`.*?`) \| ", text, re.MULTILINE)
    named = [name for cell in table for name in re.findall(r"`(\w+)`", cell)]
    known = {field.name for field in dataclasses.fields(TrainOptions)}
    assert named and set(named) <= known
    for option in command_named("train").params:
        assert option.name in known | {"task", "output", "model", "config", "plan_only", "resume", "as_json", "verbose"}


def test_the_page_on_scores_is_what_its_script_writes():
    script = ROOT / "benchmarks/quality/formulas.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_readme_names_every_metric():
    text = (ROOT / "README.md").read_text()
    for name in CORE:
        assert f"`{name}`" in text or name in ("loglikelihood", "perplexity"), name


def test_every_hook_has_a_heading():
    text = (ROOT / "plugins/README.md").read_text()
    for name, value in vars(hookspecs).items():
        if inspect.isfunction(value):
            assert f"\n### {name}\n" in text


@pytest.fixture(scope="module")
def written_plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin of plugins/README.md, as if installed."""
    folder = tmp_path_factory.mktemp("plugin")
    code = [block for block in blocks("plugins/README.md", "python")]
    (folder / "lmtasks_titles.py").write_text(code[0] + "\n\n" + code[2])
    (folder / "test_titles.py").write_text(code[1])
    (folder / "titles.jsonl").write_text(blocks("plugins/README.md", "json")[0])
    (package,) = blocks("plugins/README.md", "toml")
    import tomllib

    project = tomllib.loads(package)["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    entries = "\n".join(f"{name} = {module}" for name, module in project["entry-points"]["lmtasks"].items())
    (info / "entry_points.txt").write_text(f"[lmtasks]\n{entries}\n")
    return folder


def in_plugin(folder: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_plugin_of_the_tutorial_is_found_tested_and_run(written_plugin: Path, tiny_folder: Path):
    main = "from lmtasks.cli.main import main; main()"
    assert "titles  " in in_plugin(written_plugin, "-c", main, "list")
    assert "2 passed" in in_plugin(written_plugin, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_titles.py")
    ran = in_plugin(
        written_plugin, "-c", main, "run", "titles", "--model", str(tiny_folder), "--num-fewshot", "1",
        "--metrics", "rouge,titles/brevity", "--json",
    )  # fmt: skip
    names = [score["name"] for score in json.loads(ran)["scores"]]
    assert names == ["rouge1", "rouge2", "rougeL", "rougeLsum", "brevity"]


def test_the_plugin_of_the_tutorial_is_under_40_lines():
    assert len(blocks("plugins/README.md", "python")[0].splitlines()) < 40
