"""Tells which examples overlap: the one definition, for few-shot draws, held-out data and training data."""

from __future__ import annotations

from lmtasks.task import Example
from lmtasks.text_utils import folded


def input_key(example: Example) -> tuple[tuple[str, str], ...]:
    """Return a key of the inputs, equal for examples that count as the same.

    White space, case, width, invisible characters and Unicode composition are ignored: public data sets hold copies
    that differ in nothing else.
    """
    return tuple(sorted((name, folded(text)) for name, text in example.inputs.items()))
