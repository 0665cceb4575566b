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
    """A change of one score that is not to be."""

    score: str
    change: Literal["drops", "rises"]
    amount: float | None
    """The change has to be larger than this, tested or not; None: it has to be significant."""

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Read "SCORE drops|rises [by NUMBER]".

        Raises:
            UsageError: it is something else.
        """
        found = _CONDITION.fullmatch(text.strip())
        if not found:
            raise UsageError(
                f'"{text}" is no condition; expected "SCORE drops", "SCORE rises" or "SCORE drops by NUMBER"'
            )
        amount = found["amount"]
        change: Literal["drops", "rises"] = "drops" if found["change"] == "drops" else "rises"
        return cls(found["score"], change, None if amount is None else float(amount))

    def failing(self, comparison: Comparison) -> str | None:
        """Return what happened if the change did, else None.

        Raises:
            UnknownNameError: the comparison has no such score.
            UsageError: the score cannot be tested.
        """
        compared = (*comparison.scores, *comparison.health)
        scores = [score for score in compared if score.name.lower() == self.score.lower()]
        if not scores:
            known = ", ".join(dict.fromkeys(score.name for score in compared))
            raise UnknownNameError(f'unknown score "{self.score}"; the comparison has {known}')
        for score in scores:
            if self.amount is None and score.p_corrected is None and score.difference:
                raise UsageError(f'{score.name} has no test; say by how much: "{score.name} {self.change} by NUMBER"')
            if self.amount is None and not score.has_power:
                raise UsageError(
                    f'"{self.score} {self.change}" cannot be told on {score.n} examples: p is never below'
                    f" {score.smallest_p:.3f} here; take more examples or {option('trials')}, or say by how much:"
                    f' "{score.name} {self.change} by NUMBER"'
                )
            moved = -score.difference if self.change == "drops" else score.difference
            if moved > (self.amount or 0) and (self.amount is not None or score.significant):
                p = "" if score.p_corrected is None else f", p = {score.p_corrected:.4f} corrected"
                digits = 2 if score.unit == "0-100" else 4
                where = f" in {score.language}" if len(scores) > 1 else ""
                return (
                    f"{score.name}{where} {self.change} by {moved:.{digits}f}, from {score.first:.{digits}f} to"
                    f" {score.second:.{digits}f}{p}"
                )
        return None
