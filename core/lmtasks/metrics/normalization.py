"""Unicode normalization of outputs and references: metrics compare characters without normalizing them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Literal

from lmtasks.task import Sample


def normalization_warning(samples: Sequence[Sample]) -> str | None:
    """Return a warning about outputs in another normalization form than their references; None if there are none."""
    differing = sum(_differs(sample) for sample in samples)
    if not differing:
        return None
    return (
        f"{differing} of {len(samples)} outputs are in another Unicode normalization form than their references (such"
        " as NFD against NFC): exact match, BLEU, chrF and others take the same letters for others; write both in NFC"
    )


def _differs(sample: Sample) -> bool:
    form = _form(sample.prediction)
    forms = {_form(text) for text in sample.references} - {None}
    return form is not None and bool(forms) and form not in forms


def _form(text: str) -> Literal["composed", "decomposed"] | None:
    """Return the form of a text; None if it is the same in both."""
    if text.isascii():
        return None
    if not unicodedata.is_normalized("NFC", text):
        return "decomposed"
    return None if unicodedata.is_normalized("NFD", text) else "composed"
