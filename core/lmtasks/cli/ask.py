"""`lmtasks ask TASK [TEXT|@FILE|-]`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from lmtasks.cli import options
from lmtasks.cli.completion import complete_tasks
from lmtasks.cli.terminal import progress


@click.command("ask")
@click.argument("task", shell_complete=complete_tasks)
@click.argument("text", required=False, metavar="[TEXT|@FILE|-]")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    callback=options.pairs,
    metavar="FIELD=TEXT",
    help="Another field of the task; FIELD=@FILE reads a file. Repeatable.",
)
@options.model_options
@options.adapter_option
@options.prompt_options
@options.generation_options
@options.plugin_options
def command(task: str, text: str | None, inputs: dict[str, str], model: str, **settings: Any) -> None:
    """Do a task on your own text; the answer is written as it comes.

    TEXT is the task's first field: itself, @FILE, or - for standard input.

    \b
    lmtasks ask summarization @report.txt
    lmtasks ask qa --input context=@leaflet.txt --input question="When does it open?"
    """
    from lmtasks import api

    given = {name: _read(value, f"--input {name}") for name, value in inputs.items()}
    if text is not None:
        given[""] = _read(text, "TEXT")
    if not given:
        raise click.UsageError("nothing to ask: give TEXT, @FILE, - for standard input, or --input FIELD=TEXT")
    written = 0

    def write(answer: str) -> None:
        nonlocal written
        bars.close()  # an answer and a progress bar do not share a screen
        click.echo(answer[written:], nl=False)
        sys.stdout.flush()
        written = len(answer)

    with ExitStack() as bars:
        on_progress = bars.enter_context(progress())
        api.ask(task, given, model=model, on_text=write, on_progress=on_progress, **settings)
    click.echo()


def _read(value: str, where: str) -> str:
    if value == "-":
        source, content = "standard input", sys.stdin.buffer.read()
    elif value.startswith("@"):
        path = Path(value[1:]).expanduser()
        source = str(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise click.UsageError(f"{where}: cannot read {path}: {error.strerror}") from error
    else:
        return value
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{where}: {source} is not UTF-8") from error
