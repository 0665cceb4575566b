"""Scores as people read them, the same after every command that makes some."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from lmtasks.cli.terminal import table
from lmtasks.escaping import one_line
from lmtasks.task import Score

if TYPE_CHECKING:
    from lmtasks.runs.compare import ComparedScore

WARNINGS = {
    "unparsed": "that the task could not read",
    "empty": "empty",
    "unfinished": "unfinished (--max-new-tokens)",
    "unanswered": "with reasoning and no answer",
    "cut": "with a prompt that was cut",
    "skipped": "skipped as too long",
}
SHARES = ("repeating", "copying", "wrong_language")
"""Of the health of outputs, what is told as a number of them beside the remarks."""


def score_lines(scores: Sequence[Score]) -> str:
    """Return a table of scores with their intervals, and the signatures below."""
    from lmtasks.reports.values import interval, number

    with_intervals = any(score.low is not None for score in scores)
    header = ("score", "value", *(["95% interval"] if with_intervals else []), "language", "n")
    rows = [
        (
            score.name,
            number(score.value, score.unit),
            *([interval(score.low, score.high, score.unit)] if with_intervals else []),
            score.language or "unknown",
            score.n,
        )
        for score in scores
    ]
    lines = [table(header, rows, right=(1, len(header) - 1)), ""]
    return "\n".join([*lines, *signature_lines(score.signature for score in scores)])


def compared_lines(scores: Sequence[ComparedScore], *, first: str = "A", second: str = "B") -> str:
    """Return a table of scores that two runs have, under these names."""
    from lmtasks.reports.values import interval, number

    rows = [
        (
            score.name if len({other.language for other in scores}) == 1 else f"{score.name} ({score.language})",
            number(score.first, score.unit),
            number(score.second, score.unit),
            number(score.difference, score.unit, sign=True),
            interval(score.low, score.high, score.unit, sign=True),
            _probability(score.p_randomisation),
            _probability(score.p_corrected),
            score.outcome,
        )
        for score in scores
    ]
    header = ("score", first, second, f"{second} - {first}", "95% interval", "p", "corrected", f"{second} is")
    return table(header, rows, right=(1, 2, 3, 5, 6))


def _probability(p: float | None) -> str:
    return "" if p is None else f"{p:.4f}"


def signature_lines(signatures: Iterable[str]) -> list[str]:
    """Return signatures, those of one metric in one line: they differ in their first word alone, the score's name."""
    shared: dict[str, list[str]] = {}
    for signature in signatures:
        name, _, rest = signature.partition("|")
        shared.setdefault(rest, []).append(name)
    return [one_line(f"{', '.join(names)}: {rest}") for rest, names in shared.items()]


def warnings_line(counts: Mapping[str, int], health: Sequence[Score]) -> str:
    """Return what happened to some of the outputs, and how long they are; nothing where there is nothing to say."""
    from lmtasks.reports.values import HEALTH

    warnings = [f"{counts[name]} {meaning}" for name, meaning in WARNINGS.items() if counts.get(name)]
    by_name = {score.name: score for score in health}
    for name in SHARES:
        if name in by_name and (count := round(by_name[name].value * by_name[name].n / 100)):
            warnings.append(f"{count} {HEALTH[name]}")
    parts = [f"of {counts['examples']}: {', '.join(warnings)}"] if warnings else []
    if "length_ratio" in by_name:
        parts.append(f"outputs are {by_name['length_ratio'].value:.2f} times as long as the references")
    return "; ".join(parts)


def examples(count: int) -> str:
    """Return how many examples there are, in words."""
    return "1 example" if count == 1 else f"{count} examples"
