"""`lmtasks ask TASK [TEXT|@FILE|-]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from lmtasks.cli import options
from lmtasks.cli.terminal import progress


@click.command("ask")
@click.argument("task")
@click.argument("text", required=False, metavar="[TEXT|@FILE|-]")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    callback=options._pairs,
    metavar="FIELD=TEXT",
    help="Another field of the task; FIELD=@FILE reads a file. Repeatable.",
)
@options.model_options
@options.prompt_options
@options.generation_options
@options.verbose_option
def command(task: str, text: str | None, inputs: dict[str, str], model: str, **settings: Any) -> None:
    r"""Do a task on your own text; the answer is written as it comes.

    TEXT is the task's first field: itself, @FILE, or - for standard input.

    \b
    lmtasks ask summarization @report.txt
    lmtasks ask qa --input context=@leaflet.txt --input question="When does it open?"
    """
    from lmtasks import api
    from lmtasks.runs.options import RunOptions

    given = {name: _read(value, f"--input {name}") for name, value in inputs.items()}
    if text is not None:
        given[""] = _read(text, "TEXT")
    if not given:
        raise click.UsageError("nothing to ask: give TEXT, @FILE, - for standard input, or --input FIELD=TEXT")
    written = 0

    def write(answer: str) -> None:
        nonlocal written
        click.echo(answer[written:], nl=False)
        sys.stdout.flush()
        written = len(answer)

    with progress() as on_progress:
        loaded = api.load_model(model, RunOptions(**_model_settings(settings)), on_progress=on_progress)
    api.ask(task, given, model=loaded, on_text=write, **settings)
    click.echo()


def _model_settings(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in ("device", "dtype", "trust_remote_code")}


def _read(value: str, where: str) -> str:
    if value == "-":
        return sys.stdin.read()
    if not value.startswith("@"):
        return value
    path = Path(value[1:]).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"{where}: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{where}: {path} is not UTF-8") from error
