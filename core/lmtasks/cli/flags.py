"""How the command line writes the options of Python."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

FLAGS = {
    "chat_template_date": "--template-date",
    "chat_template_kwargs": "--template-set",
    "columns": "--map",
    "output": "-o",
    "parameters": "--set",
}
"""Options whose flag has another name."""


def flag(name: str, value: object = None) -> str:
    """Return an option as it is written on the command line: `--dtype float32`.

    Args:
        name: its name in Python.
        value: what to set it to; None, or True for a switch: the flag alone.
    """
    text = FLAGS.get(name) or f"--{name.replace('_', '-')}"
    if value is None or value is True:
        return text
    if isinstance(value, Mapping):
        return " ".join([text, *(shlex.quote(f"{key}={item}") for key, item in value.items())])
    if isinstance(value, (list, tuple)):
        value = ",".join(str(item) for item in value)
    return f"{text} {shlex.quote(str(value))}"
