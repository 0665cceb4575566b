"""Creates a plugin package from the files in `template/`."""

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
"""Names that plugins cannot have: `plugins check all` means every plugin, and lmtasks has a package lmtasks_plugins."""
MAX_NAME = 60
"""Longest name in characters: it becomes part of file names."""
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
"""Files of the package by their template."""
MAX_SUMMARY = 120
"""Longest summary in characters: it fits one line of a list."""
ADAPTER = "adapter"
"""Folder of the adapter in the module."""
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "lmtasks.json", "README.md")
"""Files that are copied from an adapter's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPlugin:
    """Name and contents of a new plugin."""

    name: str
    """Name of the entry point and of the first task."""
    summary: str
    author: str
    metric: bool = False
    """Whether it has a metric."""
    adapter: Path | None = None
    """Folder of a LoRA adapter to copy into it."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: a value is not allowed; says what is expected.
        """
        if self.name in RESERVED:
            raise UsageError(f'"{self.name}" means something else to lmtasks; choose another name')
        if not NAME.fullmatch(self.name) or len(self.name) > MAX_NAME:
            raise UsageError(
                f'"{self.name}": a plugin\'s name has lower-case letters, digits and single "-", as in "titles", and at'
                f" most {MAX_NAME} characters"
            )
        for name in ("summary", "author"):
            text = getattr(self, name)
            if not text.strip() or not text.isprintable() or len(text) > MAX_SUMMARY:
                raise UsageError(f"{name} must be one line of text, of at most {MAX_SUMMARY} characters")

    @property
    def distribution(self) -> str:
        """Name of the distribution, for pip."""
        return f"lmtasks-{self.name}"

    @property
    def module(self) -> str:
        """Name of the module, for imports."""
        return self.distribution.replace("-", "_")


def write_plugin(plan: NewPlugin, folder: Path) -> list[str]:
    """Create a package; return its files, relative to the folder.

    Raises:
        PluginError: the folder is not empty or cannot be written, or an installed plugin has the name.
        UsageError: the adapter's folder has no adapter.
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
    """Return a text as the docstring of a module."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"""{escaped}"""'


def _quoted(text: str) -> str:
    """Return a text as a string literal that Python, JSON and TOML read alike."""
    return json.dumps(text, ensure_ascii=False)
