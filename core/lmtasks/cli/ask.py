"""`lmtasks ask TASK [TEXT|@FILE|-]`."""

from __future__ import annotations

import errno
import sys
from contextlib import ExitStack
from typing import Any

import click

from lmtasks.cli import arguments, options
from lmtasks.cli.completion import complete_tasks
from lmtasks.cli.terminal import progress
from lmtasks.errors import PathError
from lmtasks.paths import user_path


@click.command("ask")
@click.argument("task", shell_complete=complete_tasks)
@click.argument("text", required=False, metavar="[TEXT|@FILE|-]")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    callback=arguments.pairs,
    metavar="FIELD=TEXT",
    help="Text of a field of the task; FIELD=@FILE reads a file, @@ stands for @. Repeatable.",
)
@options.inference_options
@options.adapter_option
@options.run_prompt_options
@options.generation_options
@options.plugin_options
def command(task: str, text: str | None, inputs: dict[str, str], model: str, **settings: Any) -> None:
    """Run a task on your own text; the answer is streamed.

    TEXT is the task's first field: a text, @FILE, or - for standard input. For a text that begins with @, write @@:
    @@alice wrote ...

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
        bars.close()  # the answer must not mix with a progress bar
        click.echo(answer[written:], nl=False)
        sys.stdout.flush()
        written = len(answer)

    with ExitStack() as bars:
        on_progress = bars.enter_context(progress())
        api.ask(task, given, model=model, on_text=write, on_progress=on_progress, **options.given(settings))
    click.echo()


def _read(value: str, where: str) -> str:
    """Return the text that an argument stands for.

    Args:
        value: a text, "-" for standard input, "@FILE" for a file's content, or "@@..." for a text that begins with "@".
        where: the argument or option, for messages.

    Raises:
        click.UsageError: there is no such file, it cannot be read, or the text is not UTF-8.
    """
    if value == "-":
        source, content = "standard input", _standard_input(where)
    elif value.startswith("@") and not value.startswith("@@"):
        source, content = _file(value[1:], where)
    else:
        text = value[1:] if value.startswith("@@") else value
        source, content = "the text", text.encode("utf-8", "surrogatepass")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{where}: {source} is not UTF-8") from error


def _standard_input(where: str) -> bytes:
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        reason = "it is closed" if error.errno == errno.EBADF else error.strerror
        raise click.UsageError(f"{where}: cannot read standard input: {reason}") from error


def _file(name: str, where: str) -> tuple[str, bytes]:
    hint = 'to ask about a text that begins with "@", write "@@"'
    try:
        path = user_path(name, "file")
        return str(path), path.read_bytes()
    except PathError as error:
        raise click.UsageError(f"{where}: {error}; {hint}") from error
    except OSError as error:
        raise click.UsageError(f"{where}: cannot read {name}: {error.strerror}; {hint}") from error
