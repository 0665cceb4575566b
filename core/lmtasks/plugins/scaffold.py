"""A new plugin package, written from the files in `template/`."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

from lmtasks.errors import PluginError, UsageError, option
from lmtasks.hookspecs import PROJECT
from lmtasks.plugins.discovery import find_plugins

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
RESERVED = ("all", "plugins")
"""What `plugins check` takes for every plugin, and whose module would stand in the way of lmtasks' own."""
LONGEST_NAME = 60
"""Characters: it becomes part of the names of files."""
TEMPLATE = Path(__file__).with_name("template")
FILES = {
    "pyproject.toml.jinja": "pyproject.toml",
    "README.md.jinja": "README.md",
    "LICENSE.jinja": "LICENSE",
    "check.yml.jinja": ".github/workflows/check.yml",
    "module.py.jinja": "{module}/__init__.py",
    "demo.jsonl.jinja": "{module}/demo.jsonl",
    "test.py.jinja": "tests/test_{task}.py",
}
"""A template to the file that it becomes."""
LONGEST_SUMMARY = 120
"""Characters of a summary that still stands in one line of a list."""
ADAPTER = "adapter"
"""The folder of the adapter within the module."""
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "lmtasks.json", "README.md")
"""What is taken of an adapter's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPlugin:
    """What a new plugin is to be called and to have."""

    name: str
    """Of its entry point and first task."""
    summary: str
    author: str
    metric: bool = False
    """Whether it has a metric of its own."""
    adapter: Path | None = None
    """A LoRA adapter that it brings."""

    def __post_init__(self) -> None:
        """Refuse names that no package can have.

        Raises:
            UsageError: says what is expected.
        """
        if self.name in RESERVED:
            raise UsageError(f'"{self.name}" means something else to lmtasks; choose another name')
        if not NAME.fullmatch(self.name) or len(self.name) > LONGEST_NAME:
            raise UsageError(
                f'"{self.name}": a plugin\'s name has lower-case letters, digits and single "-", as in "titles", and at'
                f" most {LONGEST_NAME} characters"
            )
        for name in ("summary", "author"):
            text = getattr(self, name)
            if not text.strip() or not text.isprintable() or len(text) > LONGEST_SUMMARY:
                raise UsageError(f"{name} must be one line of text, of at most {LONGEST_SUMMARY} characters")

    @property
    def distribution(self) -> str:
        """The name that pip knows it by."""
        return f"lmtasks-{self.name}"

    @property
    def module(self) -> str:
        """The name that Python imports it by."""
        return self.distribution.replace("-", "_")


def write_plugin(plan: NewPlugin, folder: Path) -> list[str]:
    """Write a package; return its files, relative to the folder.

    Raises:
        PluginError: the folder exists and holds something, cannot be written, or an installed plugin has the name.
        UsageError: the adapter's folder holds no adapter.
    """
    import jinja2

    if plan.name in (installed := find_plugins()):
        raise PluginError(
            f'a plugin named "{plan.name}" is installed: {installed[plan.name][0].origin}; choose another'
        )
    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise PluginError(f"{folder}: exists already; name another folder with {option('output')}")
    if plan.adapter and not (plan.adapter / "adapter_config.json").is_file():
        raise UsageError(f"{plan.adapter}: no adapter (it has no adapter_config.json); `lmtasks train` makes one")
    if plan.adapter and (plan.adapter / "training").is_dir():
        raise UsageError(
            f"{plan.adapter}: its training has not finished; wait for it, or continue with {option('resume', True)}"
        )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - these are no web pages
    )
    environment.filters |= {"docstring": _docstring, "quoted": _quoted}
    values = {
        "plan": plan,
        "year": date.today().year,
        "lmtasks": version(PROJECT),
        "task": plan.name.replace("-", "_"),
    }
    written = []
    try:
        for template, target in FILES.items():
            file = target.format(module=plan.module, task=values["task"])
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(environment.get_template(template).render(values), encoding="utf-8")
            written.append(file)
        if plan.adapter:
            (folder / plan.module / ADAPTER).mkdir()
            for part in plan.adapter.iterdir():
                if part.name in ADAPTER_FILES:
                    shutil.copy(part, folder / plan.module / ADAPTER)
            written.append(f"{plan.module}/{ADAPTER}")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise PluginError(f"{folder}: cannot be written ({error})") from error
    return written


def _docstring(text: str) -> str:
    """Return text as the docstring of a module."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"""{escaped}"""'


def _quoted(text: str) -> str:
    """Return text as a string of Python, JSON and TOML alike."""
    return json.dumps(text, ensure_ascii=False)
