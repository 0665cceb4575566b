"""Detects lists and objects that were written as text into cells, as pandas does when it saves CSV."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence

from lmtasks.data.columns import lookup
from lmtasks.data.rows import Row
from lmtasks.errors import DataError

log = logging.getLogger("lmtasks.data")
JSON_OBJECT = "a JSON object"
"""The kind that may be an input on purpose: a table or record that the model should describe."""
_MAX_CELL = 1_000_000
"""Characters of the longest cell that is inspected; longer ones are ignored."""
_MAX_SHOWN = 40
_REMEDY = (
    "save the original data as JSONL or Parquet, where lists stay lists:"
    ' df.to_json("data.jsonl", orient="records", lines=True)'
)
_WRAPPERS = {
    "array": "a numpy array",
    "tensor": "a tensor",
    "Index": "a list",
    "deque": "a list",
    "dict_keys": "a list",
    "dict_values": "a list",
    "OrderedDict": "a dict",
    "defaultdict": "a dict",
    "Counter": "a dict",
    "set": "a set",
    "frozenset": "a set",
}
"""Type names that Python prints before the brackets, and the kind each stands for."""
_NAMES = (
    "None|True|False|null|true|false|nan|NaN|NaT|inf|Infinity|NA|"
    r"(?:np\.|numpy\.)(?:array|nan|inf)|"
    r"(?:np\.|numpy\.)?(?:str_|bytes_|bool_?|True_|False_|u?int\d*|float\d*|datetime64|timedelta64|object|string)|"
    r"dtype|torch\.\w+|maxlen|tzinfo|Timestamp|Timedelta|(?:datetime\.)?(?:datetime|date|time|timedelta|timezone\.utc)|Decimal|UUID|"
    rf"(?:collections\.)?(?:{'|'.join(_WRAPPERS)})"
)
_OPENING = re.compile(rf"[\[({{]|(?:np\.|numpy\.|collections\.)?(?P<wrapper>{'|'.join(_WRAPPERS)})\(")
_BYTES = re.compile(r"[bB](?:'[^'\\]*+(?:\\.[^'\\]*+)*+'|\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\")", re.DOTALL)
_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<value>[bBuUrR]{0,2}(?:'[^'\\]*+(?:\\.[^'\\]*+)*+'|\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\")"
    r"|[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
    rf"|\b(?:{_NAMES})\b|<NA>|<class '[\w.]+'>)"
    r"|(?P<open>[\[({])|(?P<close>[\])}])|(?P<mark>[,:=]|\.\.\.)",
    re.DOTALL,
)
_UNQUOTED = re.compile(r"\[[^\[\]{}]*\]|\{[^\[\]{}]*\}")
"""Lists as DuckDB ([seven, seven arches]) and PostgreSQL ({seven,"seven arches"}) print them; texts may look alike."""
_MISSING = frozenset({"", "nan", "none", "null", "<na>", "nat"})
"""Words that pandas writes for missing values, in lower case."""
_PAIRS = {"[": "]", "(": ")", "{": "}"}
_ONLY_WITHIN = {":": "}", "=": ")"}
"""Marks that are allowed only within certain brackets, by their closing bracket."""


def literal_kind(text: str) -> str | None:
    """Return which value a text is the literal of: "a list", "a JSON list", "a dict", "bytes"; None: plain text.

    The text is split into tokens and never evaluated, so that a file cannot cause deep recursion or long work.

    Args:
        text: the text of a cell.
    """
    text = text.strip()
    if _BYTES.fullmatch(text):
        return "bytes"
    opening = _OPENING.match(text)
    if opening is None or not text.endswith(("]", ")", "}")) or not _is_one_literal(text):
        return None
    if opening["wrapper"]:
        return _WRAPPERS[opening["wrapper"]]
    if text.startswith("("):
        # (1931) is a number in parentheses.
        return "a tuple" if "," in text else None
    loaded = _load_json(text)
    if loaded is not None:
        return "a JSON list" if isinstance(loaded, list) else JSON_OBJECT
    if text.startswith("{"):
        if ":" in text:
            return "a dict"
        # {0} is a placeholder in a text.
        return "a set" if re.search("[,'\"]", text) else None
    return "a list"


def _is_one_literal(text: str) -> bool:
    """Return whether a text is one pair of brackets with only literals and brackets inside.

    "[00:12]" is not, since ":" is allowed only in a dict; nor is "[12-14]", two values without a space.
    """
    brackets: list[str] = []
    position, previous, content = 0, "", ""
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None or (token.lastgroup == "value" and previous == "value"):
            return False
        part, previous = token[0], str(token.lastgroup)
        if previous == "open":
            brackets.append(_PAIRS[part])
        elif previous == "close":
            if not brackets or brackets.pop() != part:
                return False
            if not brackets:
                return token.end() == len(text) and content != "mark"
        elif previous == "mark" and part in _ONLY_WITHIN and brackets[-1:] != [_ONLY_WITHIN[part]]:
            return False
        if content != "value" and previous in ("value", "mark"):
            content = previous
        position = token.end()
    return False


def _load_json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def literal_column(rows: Sequence[Row], column: str, *, allowed: str | None = None) -> str | None:
    """Return what is wrong with a column in which every text is the literal of a list or object; None: nothing.

    Args:
        rows: rows of a data set.
        column: the column to inspect; a list, number or other value that is not text makes it fine, while empty cells
            and the words that pandas writes for them are ignored.
        allowed: a kind that is allowed.
    """
    first: tuple[Row, str, str] | None = None
    for row in rows:
        value = lookup(row.values, column)
        if value is None or (isinstance(value, str) and not _is_informative(value)):
            continue
        kind = literal_kind(value) if isinstance(value, str) else None
        if kind in (None, allowed):
            return None
        first = first or (row, str(value).strip(), str(kind))
    if first is None:
        return None
    row, text, kind = first
    return (
        f'{row.where}: column "{column}" holds {kind} written as text ({_shortened(text)}), here and in every other'
        f" row; {_REMEDY}"
    )


def refuse_literals(rows: Sequence[Row], column: str, *, allowed: str | None = None) -> None:
    """Refuse a column in which every text is the literal of a list or object; arguments as for `literal_column`.

    Raises:
        DataError: names the first such row and the remedy.
    """
    problem = literal_column(rows, column, allowed=allowed)
    if problem is not None:
        raise DataError(problem)


def warn_of_lists(rows: Sequence[Row], column: str) -> None:
    """Log a warning if every reference in a column looks like a list but may be plain text.

    These are lists of list literals, the way to give such a text on purpose, and brackets around words without
    quotation marks: lists of DuckDB, but also sounds in subtitles and parse trees.
    """
    first: tuple[Row, str] | None = None
    certain = False
    for row in rows:
        value = lookup(row.values, column)
        for text in value if isinstance(value, list) else [value]:
            if text is None or (isinstance(text, str) and not _is_informative(text)):
                continue
            if not isinstance(text, str):
                return
            text = text.strip()
            is_literal = literal_kind(text) is not None
            if not is_literal and not _UNQUOTED.fullmatch(text):
                return
            first = first or (row, text)
            certain = certain or is_literal or "," in text
    if first is not None and certain:
        row, text = first
        log.warning(
            '%s: column "%s" holds texts that look like lists (%s), here and in every other row; they are kept as text.'
            " If they are lists, %s",
            row.where,
            column,
            _shortened(text),
            _REMEDY,
        )


def _is_informative(text: str) -> bool:
    return len(text) <= _MAX_CELL and text.strip().casefold() not in _MISSING


def _shortened(text: str) -> str:
    return " ".join((text[:_MAX_SHOWN] + "..." if len(text) > _MAX_SHOWN else text).split())
