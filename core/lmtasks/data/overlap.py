"""When two examples are the same: one definition for all that must not see what is scored."""

from __future__ import annotations

from lmtasks.task import Example
from lmtasks.text_utils import folded


def input_key(example: Example) -> tuple[tuple[str, str], ...]:
    """Return what an example asks, equal for examples that ask the same.

    Space, case, width, invisible characters and the form in which Unicode composes characters do not count: public sets
    hold copies that differ in nothing else.
    """
    return tuple(sorted((name, folded(text)) for name, text in example.inputs.items()))
