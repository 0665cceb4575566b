"""Lists and objects that were printed into cells: what pandas does with them when it writes CSV."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from lmtasks.data.columns import lookup
from lmtasks.data.rows import Row
from lmtasks.errors import DataError

JSON_OBJECT = "a JSON object"
"""A kind that may be an input on purpose: a table or record that the model should put into words."""
_LONGEST = 1_000_000
"""Characters of a cell that are looked at; a longer one says nothing of its column."""
_SHOWN = 40
_NAMES = (
    "None|True|False|null|true|false|nan|NaN|NaT|inf|Infinity|NA|"
    r"(?:np\.|numpy\.)?(?:array|str_|bytes_|bool_|u?int\d*|float\d*|object|string)|"
    r"dtype|Timestamp|(?:datetime\.)?(?:datetime|date)|Decimal|OrderedDict|set|frozenset"
)
_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<value>[bBuUrR]{0,2}(?:'[^'\\]*+(?:\\.[^'\\]*+)*+'|\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\")"
    r"|[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
    rf"|\b(?:{_NAMES})\b)"
    r"|(?P<open>[\[({])|(?P<close>[\])}])|(?P<mark>[,:=]|\.\.\.)",
    re.DOTALL,
)
_PAIRS = {"[": "]", "(": ")", "{": "}"}
_WITHIN = {":": "}", "=": ")"}
"""Marks that stand only within certain brackets."""


def printed_kind(text: str) -> str | None:
    """Return what a text is the printed form of: "a list", "a JSON list", "a dict", ...; None: it is plain text.

    The text is cut into tokens and never evaluated: what a file holds must not decide how deep or long that goes.

    Args:
        text: of a cell.
    """
    text = text.strip()
    if not text.startswith(("[", "(", "{", "array(", "np.array(")) or not text.endswith(("]", ")", "}")):
        return None
    if not _is_one_literal(text):
        return None
    if text.startswith(("array", "np")):
        return "a numpy array"
    if text.startswith("("):
        # (1931) is a number in parentheses.
        return "a tuple" if "," in text else None
    loaded = _loaded(text)
    if loaded is not None:
        return "a JSON list" if isinstance(loaded, list) else JSON_OBJECT
    if text.startswith("{"):
        return "a dict" if ":" in text else None
    return "a list"


def _is_one_literal(text: str) -> bool:
    """Return whether a text is one pair of brackets that holds literals and brackets alone.

    "[00:12]" is none, for ":" stands only between the parts of a dict; nor is "[12-14]", two values without a space.
    """
    brackets: list[str] = []
    place, previous, held = 0, "", ""
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None or (token.lastgroup == "value" and previous == "value"):
            return False
        part, previous = token[0], str(token.lastgroup)
        if previous == "open":
            brackets.append(_PAIRS[part])
        elif previous == "close":
            if not brackets or brackets.pop() != part:
                return False
            if not brackets:
                return token.end() == len(text) and held != "mark"
        elif previous == "mark" and part in _WITHIN and brackets[-1:] != [_WITHIN[part]]:
            return False
        if held != "value" and previous in ("value", "mark"):
            held = previous
        place = token.end()
    return False


def _loaded(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def printed_column(rows: Sequence[Row], column: str, *, allowed: str | None = None) -> str | None:
    """Return what is wrong with a column whose every text is a printed list or object; None: nothing.

    Args:
        rows: of a data set.
        column: whose values are looked at; lists, numbers and other values that are no text make it sound.
        allowed: a kind that may stand there.
    """
    first: tuple[Row, str, str] | None = None
    for row in rows:
        value = lookup(row.values, column)
        if value is None or (isinstance(value, str) and (not value.strip() or len(value) > _LONGEST)):
            continue
        kind = printed_kind(value) if isinstance(value, str) else None
        if kind in (None, allowed):
            return None
        first = first or (row, str(value).strip(), str(kind))
    if first is None:
        return None
    row, text, kind = first
    shown = text[:_SHOWN] + "..." if len(text) > _SHOWN else text
    return (
        f'{row.where}: column "{column}" holds {kind} written as text ({" ".join(shown.split())}), here and in every'
        " other row; save the original data as JSONL or Parquet, where lists stay lists:"
        ' df.to_json("data.jsonl", orient="records", lines=True)'
    )


def refuse_printed(rows: Sequence[Row], column: str, *, allowed: str | None = None) -> None:
    """Refuse a column whose every text is a printed list or object; arguments as for `printed_column`.

    Raises:
        DataError: names the first of them, and says what to do.
    """
    problem = printed_column(rows, column, allowed=allowed)
    if problem is not None:
        raise DataError(problem)
