"""Scores as people read them, the same after every command that makes some."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lmtasks.cli.terminal import table
from lmtasks.task import Score

REMARKS = {
    "empty": "empty",
    "unfinished": "unfinished (--max-new-tokens)",
    "cut": "with a prompt that was cut",
    "skipped": "skipped as too long",
}
HEALTH = {"repeating": "in a loop", "copying": "copied from the input", "wrong_language": "in another language"}


def score_lines(scores: Sequence[Score]) -> str:
    """Return a table of scores with their intervals, and the signatures below."""
    with_intervals = any(score.low is not None for score in scores)
    header = ("score", "value", *(["95% interval"] if with_intervals else []), "language", "n")
    rows = [
        (
            score.name,
            number(score.value),
            *([interval(score.low, score.high)] if with_intervals else []),
            score.language or "unknown",
            score.n,
        )
        for score in scores
    ]
    lines = [table(header, rows, right=(1, len(header) - 1)), ""]
    return "\n".join([*lines, *signature_lines((score.name, score.signature) for score in scores)])


def signature_lines(signatures: Iterable[tuple[str, str]]) -> list[str]:
    """Return signatures, those of one metric in one line: they differ in their first word alone, the score's name."""
    shared: dict[str, list[str]] = {}
    for _, signature in signatures:
        name, _, rest = signature.partition("|")
        shared.setdefault(rest, []).append(name)
    return [f"{', '.join(names)}: {rest}" for rest, names in shared.items()]


def remarks_line(counts: Mapping[str, int]) -> str:
    """Return what happened to some of the examples, or nothing."""
    remarks = [f"{counts[name]} {meaning}" for name, meaning in REMARKS.items() if counts[name]]
    return f"of {counts['examples']}: {', '.join(remarks)}" if remarks else ""


def health_line(health: Sequence[Score]) -> str:
    """Return what is wrong with outputs, beside what the remarks tell, and how long they are."""
    by_name = {score.name: score for score in health}
    parts = [
        f"{by_name[name].value:.0f}% {meaning}"
        for name, meaning in HEALTH.items()
        if name in by_name and by_name[name].value
    ]
    if "length_ratio" in by_name:
        parts.append(f"{by_name['length_ratio'].value:.2f} times as long as the references")
    return f"outputs: {', '.join(parts)}" if parts else ""


def number(value: float | None, *, sign: bool = False) -> str:
    """Return a score with two decimals, or more where it is small."""
    if value is None:
        return ""
    digits = 2 if abs(value) >= 1 or value == 0 else 4
    return f"{value:{'+' if sign else ''}.{digits}f}"


def interval(low: float | None, high: float | None, *, sign: bool = False) -> str:
    """Return the bounds of an interval, or nothing where there is none."""
    return "" if low is None or high is None else f"{number(low, sign=sign)} to {number(high, sign=sign)}"
