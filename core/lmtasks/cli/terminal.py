"""What people see: progress on stderr, tables on stdout."""

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
"""The exit code of a command that did not do all that was asked."""
SLOW = 2.0
"""Seconds from which on the import of a plugin is told: whoever lists tasks waits for it."""
LONGEST_MESSAGE = 2000
"""Characters of a message; the known names of tasks, which some list, are 600."""
PLAIN_EVERY = 10.0
"""Seconds between lines of progress where stderr is no terminal."""


@contextmanager
def progress() -> Iterator[OnProgress]:
    """Give a callback that shows progress: bars with an estimate on a terminal, plain lines elsewhere."""
    if isinstance(sys.stderr, Messages) and sys.stderr.isatty():
        with _bars(sys.stderr) as on_progress:
            yield on_progress
    else:
        yield _plain_lines()


@contextmanager
def _bars(messages: Messages) -> Iterator[OnProgress]:
    """Draw bars on the terminal itself; what else is said meanwhile is shown above them."""
    from rich.console import Console
    from rich.file_proxy import FileProxy
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    terminal = messages.stream
    # Names and paths are text: "[/x]" is no markup, ":smile:" no picture.
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
    current, told, begun, before, complete = "", 0.0, 0.0, 0, False

    def on_progress(what: str, done: int, total: int, note: str = "") -> None:
        nonlocal current, told, begun, before, complete
        now = time.monotonic()
        if what != current:
            current, begun, before, complete = what, now, done, False
        elif now - told < PLAIN_EVERY and (complete or not done >= total > 0):
            return
        told, complete = now, done >= total > 0
        left = ""
        if before < done < total and now - begun >= PLAIN_EVERY:  # the first batch alone tells little
            left = f", about {(now - begun) / (done - before) * (total - done):.0f} s left"
        click.echo(one_line(f"{what}{': ' if total else ''}{_amount(done, total, note)}{left}"), err=True)

    return on_progress


def _amount(done: int, total: int, note: str) -> str:
    return ", ".join(part for part in (f"{done}/{total}" if total else "", note) if part)


def message(text: str) -> str:
    """Return a message in one line of bounded length: a file's column may have a name of a megabyte."""
    line = one_line(text)
    if len(line) <= LONGEST_MESSAGE:
        return line
    half = LONGEST_MESSAGE // 2
    return f"{line[:half]} [...] {line[-half:]}"


def say(text: str) -> None:
    """Write a line to stderr."""
    click.echo(message(f"lmtasks: {text}"), err=True)


def print_errors(errors: Iterable[LmtasksError]) -> None:
    """Write a line for each error to stderr, with the traceback where `-v` asks for it."""
    for error in errors:
        show_traceback(error)
        say(str(error))


def show_traceback(error: LmtasksError) -> None:
    """Write where an error came from to stderr, where `-v` asks for it."""
    if logging.getLogger("lmtasks").isEnabledFor(logging.DEBUG):
        traceback.print_exception(error)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[int] = ()) -> str:
    """Return rows in columns, as wide as they need; a row is one line.

    Args:
        header: names of the columns.
        rows: cells, any values.
        right: columns to be aligned to the right.
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
    """Return names, in a column of that width, with their values, each in one line; without those that are empty."""
    return "\n".join(f"{name:<{width}} {one_line(str(value))}" for name, value in values.items() if value)


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes: Chinese characters take two."""
    from rich.cells import cell_len

    return cell_len(text)
