"""What people see: progress on stderr, tables on stdout."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import click

from lmtasks.errors import LmtasksError
from lmtasks.progress import OnProgress

FAILED = 1
"""The exit code of a command that did not do all that was asked."""
SLOW = 2.0
"""Seconds from which on the import of a plugin is told: whoever lists tasks waits for it."""
PLAIN_EVERY = 10.0
"""Seconds between lines of progress where stderr is no terminal."""


@contextmanager
def stdout_for_results() -> Iterator[None]:
    """Send to stderr what compiled code, child processes and functions at exit print; results alone go to stdout."""
    try:
        results = os.dup(sys.stdout.fileno())
        sys.stdout.flush()
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        yield
        return
    buffering = 1 if sys.stdout.line_buffering else -1
    # What a terminal or UTF-8 cannot show is escaped, as on stderr.
    sys.stdout = os.fdopen(results, "w", buffering, encoding=sys.stdout.encoding, errors="backslashreplace")
    try:
        yield
    finally:
        with suppress(BrokenPipeError):
            sys.stdout.flush()
        sys.stdout = sys.stderr


@contextmanager
def progress() -> Iterator[OnProgress]:
    """Give a callback that shows progress: bars with an estimate on a terminal, plain lines elsewhere."""
    if sys.stderr.isatty():
        with _bars() as on_progress:
            yield on_progress
    else:
        yield _plain_lines()


@contextmanager
def _bars() -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        shown: dict[str, TaskID] = {}

        def on_progress(what: str, done: int, total: int, note: str = "") -> None:
            for other, bar in shown.items():
                if other != what and not bars.tasks[bar].finished:
                    bars.update(bar, total=1, completed=1)
            if what not in shown:
                shown[what] = bars.add_task(what, total=None, amount="")
            bars.update(shown[what], completed=done, total=total or None, amount=_amount(done, total, note))

        yield on_progress
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
        click.echo(f"{what}{': ' if total else ''}{_amount(done, total, note)}{left}", err=True)

    return on_progress


def _amount(done: int, total: int, note: str) -> str:
    return ", ".join(part for part in (f"{done}/{total}" if total else "", note) if part)


def complain(errors: Iterable[LmtasksError]) -> None:
    """Write a line for each error to stderr, with the traceback where `-v` asks for it."""
    for error in errors:
        show_traceback(error)
        click.echo(f"lmtasks: {error}", err=True)


def show_traceback(error: LmtasksError) -> None:
    """Write where an error came from to stderr, where `-v` asks for it."""
    if logging.getLogger("lmtasks").isEnabledFor(logging.DEBUG):
        traceback.print_exception(error)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[int] = ()) -> str:
    """Return rows in columns, as wide as they need.

    Args:
        header: names of the columns.
        rows: cells, any values.
        right: columns to be aligned to the right.
    """
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(_width(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        padded = []
        for column, cell in enumerate(row):
            space = " " * (widths[column] - _width(cell))
            padded.append(space + cell if column in right else cell + space)
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes: Chinese characters take two."""
    from rich.cells import cell_len

    return cell_len(text)
