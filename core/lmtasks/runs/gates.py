"""Conditions on a comparison that a build may fail on, such as "rougeL drops"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from lmtasks.errors import UnknownNameError, UsageError, option
from lmtasks.runs.compare import Comparison

_CONDITION = re.compile(r"(?P<score>\S+)\s+(?P<change>drops|rises)(\s+by\s+(?P<amount>\d+(\.\d+)?))?")


@dataclass(frozen=True, slots=True)
class Gate:
    """A change of one score that a build fails on."""

    score: str
    change: Literal["drops", "rises"]
    amount: float | None
    """The change has to be larger than this, tested or not; None: it has to be significant."""

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Parse "SCORE drops|rises [by NUMBER]".

        Raises:
            UsageError: it has another form.
        """
        match = _CONDITION.fullmatch(text.strip())
        if not match:
            raise UsageError(
                f'"{text}" is not a condition; expected "SCORE drops", "SCORE rises" or "SCORE drops by NUMBER"'
            )
        amount = match["amount"]
        change: Literal["drops", "rises"] = "drops" if match["change"] == "drops" else "rises"
        return cls(match["score"], change, None if amount is None else float(amount))

    def failing(self, comparison: Comparison) -> str | None:
        """Return what changed, if the condition holds; else None.

        Raises:
            UnknownNameError: the comparison has no such score.
            UsageError: the score cannot be tested.
        """
        compared = (*comparison.scores, *comparison.output_checks)
        scores = [score for score in compared if score.name.lower() == self.score.lower()]
        if not scores:
            known = ", ".join(dict.fromkeys(score.name for score in compared))
            raise UnknownNameError(f'unknown score "{self.score}"; the comparison has {known}')
        for score in scores:
            if self.amount is None and score.p_corrected is None and score.difference:
                raise UsageError(f'{score.name} has no test; say by how much: "{score.name} {self.change} by NUMBER"')
            if self.amount is None and not score.has_power:
                raise UsageError(
                    f'"{self.score} {self.change}" cannot be tested on {score.n} examples: p is never below'
                    f" {score.smallest_p:.3f} here; use more examples or {option('trials')}, or say by how much:"
                    f' "{score.name} {self.change} by NUMBER"'
                )
            moved = -score.difference if self.change == "drops" else score.difference
            if moved > (self.amount or 0) and (self.amount is not None or score.significant):
                p = "" if score.p_corrected is None else f", p = {score.p_corrected:.4f} corrected"
                digits = 2 if score.unit == "0-100" else 4
                where = f" in {score.language}" if len(scores) > 1 else ""
                return (
                    f"{score.name}{where} {self.change} by {moved:.{digits}f}, from {score.baseline:.{digits}f} to"
                    f" {score.candidate:.{digits}f}{p}"
                )
        return None
