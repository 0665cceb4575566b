"""Scores on the terminal, the same after every command that computes some."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lmtasks.cli.terminal import table
from lmtasks.escaping import one_line
from lmtasks.task import Score

if TYPE_CHECKING:
    from lmtasks.reports.view import Table
    from lmtasks.runs.compare import ComparedScore


def score_lines(scores: Sequence[Score]) -> str:
    """Return a table of scores with their intervals, and the signatures below."""
    from lmtasks.reports.view import score_table

    lines = [write_table(score_table(scores, signatures=False)), ""]
    return "\n".join([*lines, *signature_lines(score.signature for score in scores)])


def compared_lines(scores: Sequence[ComparedScore], *, baseline: str = "A", candidate: str = "B") -> str:
    """Return a table of scores of two runs, under these names."""
    from lmtasks.reports.view import compared_table

    return write_table(compared_table(scores, baseline=baseline, candidate=candidate))


def compared_check_lines(checks: Sequence[ComparedScore], *, baseline: str = "A", candidate: str = "B") -> list[str]:
    """Return a title and a table of the output checks that found something; nothing where there are none."""
    from lmtasks.reports.view import compared_table, nonzero

    if not (shown := nonzero(checks)):
        return []
    lines = write_table(compared_table(shown, baseline=baseline, candidate=candidate))
    return [f"Output checks, in % of the outputs; length_ratio: outputs / references:\n\n{lines}"]


def write_table(view: Table) -> str:
    """Return a table of a report as text for the terminal."""
    return table(view.header, view.rows, right=view.right)


def signature_lines(signatures: Iterable[str]) -> list[str]:
    """Return signatures, those of one metric in one line."""
    from lmtasks.reports.view import grouped_signatures

    return list(map(one_line, grouped_signatures(signatures)))


def examples(count: int) -> str:
    """Return a number of examples in words."""
    return "1 example" if count == 1 else f"{count} examples"
