"""Numbers as text for people, in reports and on the terminal."""

from __future__ import annotations


def number(value: float, unit: str, *, sign: bool = False) -> str:
    """Return a value with the decimals that suit its scale: two on 0-100, four on others."""
    return f"{value:{'+' if sign else ''}.{2 if unit == '0-100' else 4}f}"


def interval(low: float | None, high: float | None, unit: str, *, sign: bool = False) -> str:
    """Return the bounds of an interval, or nothing where there is none."""
    if low is None or high is None:
        return ""
    return f"{number(low, unit, sign=sign)} to {number(high, unit, sign=sign)}"


def probability(p: float | None) -> str:
    """Return a probability, or nothing where there is none."""
    return "" if p is None else f"{p:.4f}"


def duration(seconds: float) -> str:
    """Return a duration in suitable units: "40 s", "12 min", "3 h 5 min"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
