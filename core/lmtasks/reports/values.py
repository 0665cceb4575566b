"""Scores as people read them, in reports and on the terminal: how many decimals, and what an output can be."""

from __future__ import annotations

from collections.abc import Mapping

HEALTH = {
    "empty": "empty",
    "unfinished": "ended by the limit of new tokens",
    "repeating": "in a loop",
    "copying": "copied from the input",
    "wrong_language": "in another language",
    "length_ratio": "length, against the references",
}
"""What each score of the health of outputs tells of them."""


def number(value: float, unit: str, *, sign: bool = False) -> str:
    """Return a value with the decimals that its scale has use for: two of 100, four of anything else."""
    return f"{value:{'+' if sign else ''}.{2 if unit == '0-100' else 4}f}"


def interval(low: float | None, high: float | None, unit: str, *, sign: bool = False) -> str:
    """Return the bounds of an interval, or nothing where there is none."""
    if low is None or high is None:
        return ""
    return f"{number(low, unit, sign=sign)} to {number(high, unit, sign=sign)}"


def duration(seconds: float) -> str:
    """Return a time as people say it: "40 s", "12 min", "3 h 5 min"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def rounding_loss(rounding: Mapping[str, float]) -> str:
    """Return what a run's rounding to 8 bits costs, in words."""
    change = 100 * (rounding["quantized_ppl"] / rounding["baseline_ppl"] - 1)
    return f"perplexity {change:+.1f}% on {rounding['tokens']:,} tokens of the prompts"
