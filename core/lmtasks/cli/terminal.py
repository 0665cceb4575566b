"""Output for people: progress and messages on stderr, tables on stdout."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO, cast

import click

from lmtasks.cli.streams import Messages
from lmtasks.errors import LmtasksError
from lmtasks.escaping import one_line
from lmtasks.progress import OnProgress

FAILED = 1
"""Exit code of a command that failed, fully or in part."""
SLOW = 2.0
"""Seconds of import after which a plugin is reported as slow, since `list` waits for it."""
MAX_MESSAGE = 2000
"""Maximum number of characters of a message; a list of known task names has about 600."""
PLAIN_INTERVAL = 10.0
"""Seconds between lines of progress if stderr is not a terminal."""


@contextmanager
def progress() -> Iterator[OnProgress]:
    """Yield a callback that shows progress: bars with an estimate on a terminal, plain lines elsewhere."""
    if isinstance(sys.stderr, Messages) and sys.stderr.isatty():
        with _bars(sys.stderr) as on_progress:
            yield on_progress
    else:
        yield _plain_lines()


@contextmanager
def _bars(messages: Messages) -> Iterator[OnProgress]:
    """Draw progress bars on the terminal; other messages appear above them."""
    from rich.console import Console
    from rich.file_proxy import FileProxy
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    terminal = messages.stream
    # Names and paths are plain text: "[/x]" is not markup, ":smile:" not an emoji.
    console = Console(file=terminal, markup=False, highlight=False, emoji=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[amount]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as bars:
        messages.stream = cast(TextIO, FileProxy(console, terminal))
        shown: dict[str, TaskID] = {}

        def on_progress(what: str, done: int, total: int, note: str = "") -> None:
            what, note = one_line(what), one_line(note)
            for other, bar in shown.items():
                if other != what and not bars.tasks[bar].finished:
                    bars.update(bar, total=1, completed=1)
            if what not in shown:
                shown[what] = bars.add_task(what, total=None, amount="")
            bars.update(shown[what], completed=done, total=total or None, amount=_amount(done, total, note))

        try:
            yield on_progress
        finally:
            messages.flush()
            messages.stream = terminal
        for bar in shown.values():
            if bars.tasks[bar].total is None:
                bars.update(bar, total=1, completed=1)


def _plain_lines() -> OnProgress:
    current, printed, begun, before, complete = "", 0.0, 0.0, 0, False

    def on_progress(what: str, done: int, total: int, note: str = "") -> None:
        nonlocal current, printed, begun, before, complete
        now = time.monotonic()
        if what != current:
            current, begun, before, complete = what, now, done, False
        elif now - printed < PLAIN_INTERVAL and (complete or not done >= total > 0):
            return
        printed, complete = now, done >= total > 0
        left = ""
        if before < done < total and now - begun >= PLAIN_INTERVAL:  # the first batch alone is a poor estimate
            left = f", about {(now - begun) / (done - before) * (total - done):.0f} s left"
        click.echo(one_line(f"{what}{': ' if total else ''}{_amount(done, total, note)}{left}"), err=True)

    return on_progress


def _amount(done: int, total: int, note: str) -> str:
    return ", ".join(part for part in (f"{done}/{total}" if total else "", note) if part)


def message(text: str) -> str:
    """Return a message as one line of limited length: the name of a column may be a megabyte long."""
    line = one_line(text)
    if len(line) <= MAX_MESSAGE:
        return line
    half = MAX_MESSAGE // 2
    return f"{line[:half]} [...] {line[-half:]}"


def say(text: str) -> None:
    """Print a line to stderr."""
    click.echo(message(f"lmtasks: {text}"), err=True)


def print_errors(errors: Iterable[LmtasksError]) -> None:
    """Print a line for each error to stderr, with the traceback if `-v` was given."""
    for error in errors:
        show_traceback(error)
        say(str(error))


def show_traceback(error: LmtasksError) -> None:
    """Print the traceback of an error to stderr if `-v` was given."""
    if logging.getLogger("lmtasks").isEnabledFor(logging.DEBUG):
        traceback.print_exception(error)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[int] = ()) -> str:
    """Return a table as text, one line per row.

    Args:
        header: names of the columns.
        rows: rows of cells with any values.
        right: indices of right-aligned columns.
    """
    cells = [[one_line(str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(_width(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        padded = []
        for column, cell in enumerate(row):
            space = " " * (widths[column] - _width(cell))
            padded.append(space + cell if column in right else cell + space)
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def facts(values: Mapping[str, object], width: int) -> str:
    """Return lines of a name, padded to a width, and its value; empty values are left out."""
    return "\n".join(f"{name:<{width}} {one_line(str(value))}" for name, value in values.items() if value)


def _width(text: str) -> int:
    """Return the width of a text on a terminal, where Chinese characters take two columns."""
    from rich.cells import cell_len

    return cell_len(text)
