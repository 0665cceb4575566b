"""Parses the values of flags."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import click

from lmtasks.errors import PathError
from lmtasks.paths import user_path

PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}
"""Values that Python spells differently from JSON."""


class UserPath(click.Path):
    """A path; "~" is the home folder."""

    def __init__(self, **requirements: bool) -> None:
        """Pass the requirements of click.Path on."""
        super().__init__(path_type=Path, **requirements)

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        """Return the path, with the home folder in place of "~"."""
        return super().convert(user_path_of(value, self.name, param), param, ctx)


def user_path_of(value: str | os.PathLike[str], what: str, parameter: click.Parameter | None) -> Path:
    """Return the path that a parameter names.

    Raises:
        click.BadParameter: it cannot be a path.
    """
    try:
        return user_path(value, what)
    except PathError as error:
        raise click.BadParameter(str(error), param=parameter) from error


def verbose(_ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    """Enable verbose output."""
    if value:
        logging.getLogger("lmtasks").setLevel(logging.DEBUG)


def pairs(_ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Parse a repeatable NAME=VALUE."""
    pairs = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not (name and equals and text):
            raise click.BadParameter(f'"{value}": expected NAME=VALUE', param=parameter)
        if name in pairs:
            raise click.BadParameter(f'"{name}" is given twice', param=parameter)
        pairs[name] = text
    return pairs


def text_pairs(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Parse a repeatable NAME=VALUE with values that are text, not paths."""
    for value in values:
        _check_utf8(value, parameter)
    return pairs(ctx, parameter, values)


def template_values(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, object]:
    """Parse a repeatable NAME=VALUE; true, false, null and numbers are read as in JSON or Python."""

    def read(text: str) -> object:
        try:
            # NaN is not JSON and stays text.
            value: object = json.loads(PYTHON_WORDS.get(text, text), parse_constant=str)
        except (ValueError, RecursionError):
            return text
        return text if isinstance(value, (list, dict)) else value

    return {name: read(text) for name, text in text_pairs(ctx, parameter, values).items()}


def _check_utf8(value: str, parameter: click.Parameter) -> None:
    """Refuse bytes that are not UTF-8, which Python keeps as surrogates: no record can hold them."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise click.BadParameter(f'"{value}" is not UTF-8', param=parameter) from error


def names(_ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Parse names separated by commas."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    if not names:
        raise click.BadParameter("expected names, separated by commas", param=parameter)
    return names


def stops(_ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...] | None:
    """Parse texts in which `\\n` and `\\t` stand for a new line and a tab."""
    for value in values:
        _check_utf8(value, parameter)
    return tuple(value.replace("\\n", "\n").replace("\\t", "\t") for value in values) or None


def _add_to(variable: str, separator: str, ctx: click.Context, values: tuple[str, ...]) -> None:
    """Add names to an environment variable while the command runs, for this process and its children."""
    if not values:
        return
    before = os.environ.get(variable)
    os.environ[variable] = separator.join([*([before] if before else []), *values])

    def restore() -> None:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before

    ctx.call_on_close(restore)


def plugin_files(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> None:
    """Load plugins from these files while the command runs."""
    from lmtasks.plugins import FILES

    for value in values:
        user_path_of(value, "plugin file", parameter)
    _add_to(FILES, os.pathsep, ctx, values)


def plugins_off(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> None:
    """Disable these plugins while the command runs."""
    from lmtasks.errors import unknown_name
    from lmtasks.plugins import DISABLED, find_plugins

    for name in values:
        if name not in (known := find_plugins()):
            raise click.BadParameter(str(unknown_name("plugin", name, known)), param=parameter)
    _add_to(DISABLED, ",", ctx, values)
