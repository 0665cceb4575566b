"""Tables and sentences of reports, without markup: the terminal, Markdown and model cards only write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lmtasks.records.run import CountsRecord, QuantizationLossRecord
from lmtasks.reports.formats import interval, number, probability
from lmtasks.task import Score

COUNTS = {
    "unparsed": "not parsed by the task",
    "empty": "empty",
    "truncated_outputs": "truncated at max_new_tokens",
    "unanswered": "with reasoning and no answer",
    "truncated_prompts": "with a truncated prompt",
    "skipped": "skipped as too long",
}
"""Outputs that are counted, in words, by the field of their count."""
CHECKS = {
    "empty": "empty",
    "unfinished": "truncated at max_new_tokens",
    "repeating": "repetitive",
    "copying": "copied from the input",
    "wrong_language": "in another language",
    "length_ratio": "length ratio to the references",
}
"""Names of the output checks for people."""
COUNTED_CHECKS = ("repeating", "copying", "wrong_language")
"""Output checks that are given as a number of outputs beside `COUNTS`."""


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text, by row."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[int, ...] = ()
    """Indexes of columns that are aligned to the right."""
    code: tuple[int, ...] = ()
    """Indexes of columns whose cells are code."""


class ComparedScore(Protocol):
    """A score of two runs: `lmtasks.runs.compare.ComparedScore`, or its record."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def language(self) -> str | None: ...  # noqa: D102
    @property
    def unit(self) -> str: ...  # noqa: D102
    @property
    def baseline(self) -> float: ...  # noqa: D102
    @property
    def candidate(self) -> float: ...  # noqa: D102
    @property
    def difference(self) -> float: ...  # noqa: D102
    @property
    def low(self) -> float | None: ...  # noqa: D102
    @property
    def high(self) -> float | None: ...  # noqa: D102
    @property
    def p_randomization(self) -> float | None: ...  # noqa: D102
    @property
    def p_corrected(self) -> float | None: ...  # noqa: D102
    @property
    def outcome(self) -> str: ...  # noqa: D102


def score_table(scores: Sequence[Score], *, signatures: bool) -> Table:
    """Return a table of scores.

    Args:
        scores: at least one.
        signatures: with a column for what is better, and one for the signature.
    """
    with_intervals = any(score.low is not None for score in scores)
    rows = [
        (
            score.name,
            number(score.value, score.unit),
            *([interval(score.low, score.high, score.unit)] if with_intervals else []),
            score.language or "unknown",
            str(score.n),
            *([_better(score), score.signature] if signatures else []),
        )
        for score in scores
    ]
    header = (
        "score",
        "value",
        *(["95% interval"] if with_intervals else []),
        "language",
        "n",
        *(["better", "signature"] if signatures else []),
    )
    code = (len(header) - 1,) if signatures else ()
    return Table(header, tuple(rows), right=(1, header.index("n")), code=code)


def check_table(scores: Sequence[Score]) -> Table:
    """Return a table of the output checks."""
    rows = [
        (
            CHECKS.get(score.name, score.name),
            number(score.value, score.unit) + ("%" if score.unit == "0-100" else ""),
            interval(score.low, score.high, score.unit),
            _better(score),
        )
        for score in scores
    ]
    return Table(("check", "value", "95% interval", "better"), tuple(rows), right=(1,))


def compared_table(
    scores: Sequence[ComparedScore],
    *,
    baseline: str = "A",
    candidate: str = "B",
    labels: Mapping[str, str] | None = None,
    brief: bool = False,
) -> Table:
    """Return a table of scores of two runs.

    Args:
        scores: of both runs.
        baseline: name of the run that the other is compared with.
        candidate: name of the other run.
        labels: names of scores for people; None: as they are.
        brief: without the uncorrected probability and the outcome.
    """
    several_languages = len({score.language for score in scores}) > 1
    rows = []
    for score in scores:
        name = (labels or {}).get(score.name, score.name)
        rows.append(
            (
                f"{name} ({score.language})" if several_languages else name,
                number(score.baseline, score.unit),
                number(score.candidate, score.unit),
                number(score.difference, score.unit, sign=True),
                interval(score.low, score.high, score.unit, sign=True),
                *([] if brief else [probability(score.p_randomization)]),
                probability(score.p_corrected),
                *([] if brief else [score.outcome]),
            )
        )
    header = (
        "score",
        baseline,
        candidate,
        f"{candidate} - {baseline}",
        "95% interval",
        *([] if brief else ["p"]),
        "p corrected",
        *([] if brief else [f"{candidate} is"]),
    )
    return Table(header, tuple(rows), right=(1, 2, 3, 5) if brief else (1, 2, 3, 5, 6))


def nonzero(scores: Iterable[ComparedScore]) -> list[ComparedScore]:
    """Return the output checks that found something in one of the runs."""
    return [score for score in scores if score.baseline or score.candidate]


def output_warnings(counts: CountsRecord, checks: Sequence[Score]) -> str:
    """Return what happened to some of the outputs, and how long they are; nothing where there is nothing to say."""
    warnings = [f"{count} {meaning}" for name, meaning in COUNTS.items() if (count := getattr(counts, name))]
    by_name = {score.name: score for score in checks}
    for name in COUNTED_CHECKS:
        if name in by_name and (count := round(by_name[name].value * by_name[name].n / 100)):
            warnings.append(f"{count} {CHECKS[name]}")
    parts = [f"{counted(counts.examples, 'output')}: {', '.join(warnings)}"] if warnings else []
    if "length_ratio" in by_name:
        parts.append(f"outputs are {by_name['length_ratio'].value:.2f} times as long as the references")
    return "; ".join(parts)


def grouped_signatures(signatures: Iterable[str]) -> list[str]:
    """Return signatures, those of one metric in one line: they differ in their first word alone, the score's name."""
    names_by_rest: dict[str, list[str]] = {}
    for signature in signatures:
        name, _, rest = signature.partition("|")
        names_by_rest.setdefault(rest, []).append(name)
    return [f"{', '.join(names)}: {rest}" for rest, names in names_by_rest.items()]


def quantization_loss(loss: QuantizationLossRecord) -> str:
    """Return what quantization costs, in words."""
    change = 100 * (loss.quantized_ppl / loss.baseline_ppl - 1)
    return f"perplexity {change:+.1f}% on {loss.tokens:,} tokens of the prompts"


def counted(count: int, noun: str) -> str:
    """Return a number with a noun, in the plural where it is not one."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _better(score: Score) -> str:
    return {True: "higher", False: "lower", None: ""}[score.higher_is_better]
