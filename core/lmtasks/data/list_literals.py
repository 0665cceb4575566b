"""Lists and objects that were printed into cells: what pandas does with them when it writes CSV."""

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
"""A kind that may be an input on purpose: a table or record that the model should put into words."""
_LONGEST = 1_000_000
"""Characters of a cell that are looked at; a longer one says nothing of its column."""
_SHOWN = 40
_SAVE = (
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
"""What Python prints before the brackets of some lists, dicts and sets."""
_NAMES = (
    "None|True|False|null|true|false|nan|NaN|NaT|inf|Infinity|NA|"
    r"(?:np\.|numpy\.)(?:array|nan|inf)|"
    r"(?:np\.|numpy\.)?(?:str_|bytes_|bool_?|True_|False_|u?int\d*|float\d*|datetime64|timedelta64|object|string)|"
    r"dtype|torch\.\w+|maxlen|tzinfo|Timestamp|Timedelta|(?:datetime\.)?(?:datetime|date|time|timedelta|timezone\.utc)|Decimal|UUID|"
    rf"(?:collections\.)?(?:{'|'.join(_WRAPPERS)})"
)
_BEGINNING = re.compile(rf"[\[({{]|(?:np\.|numpy\.|collections\.)?(?P<wrapper>{'|'.join(_WRAPPERS)})\(")
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
"""Lists as DuckDB ([seven, seven arches]) and PostgreSQL ({seven,"seven arches"}) print them: text may look so too."""
_MISSING = frozenset({"", "nan", "none", "null", "<na>", "nat"})
"""What pandas writes for missing values, in lower case."""
_PAIRS = {"[": "]", "(": ")", "{": "}"}
_WITHIN = {":": "}", "=": ")"}
"""Marks that stand only within certain brackets."""


def printed_kind(text: str) -> str | None:
    """Return what a text is the printed form of: "a list", "a JSON list", "a dict", "bytes"; None: it is plain text.

    The text is cut into tokens and never evaluated: what a file holds must not decide how deep or long that goes.

    Args:
        text: of a cell.
    """
    text = text.strip()
    if _BYTES.fullmatch(text):
        return "bytes"
    begun = _BEGINNING.match(text)
    if begun is None or not text.endswith(("]", ")", "}")) or not _is_one_literal(text):
        return None
    if begun["wrapper"]:
        return _WRAPPERS[begun["wrapper"]]
    if text.startswith("("):
        # (1931) is a number in parentheses.
        return "a tuple" if "," in text else None
    loaded = _loaded(text)
    if loaded is not None:
        return "a JSON list" if isinstance(loaded, list) else JSON_OBJECT
    if text.startswith("{"):
        if ":" in text:
            return "a dict"
        # {0} is a place for a value in a text.
        return "a set" if re.search("[,'\"]", text) else None
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
        column: whose values are looked at; lists, numbers and other values that are no text make it sound, while
            empty cells and words that pandas writes for them say nothing.
        allowed: a kind that may stand there.
    """
    first: tuple[Row, str, str] | None = None
    for row in rows:
        value = lookup(row.values, column)
        if value is None or (isinstance(value, str) and not _says_something(value)):
            continue
        kind = printed_kind(value) if isinstance(value, str) else None
        if kind in (None, allowed):
            return None
        first = first or (row, str(value).strip(), str(kind))
    if first is None:
        return None
    row, text, kind = first
    return (
        f'{row.where}: column "{column}" holds {kind} written as text ({_shown(text)}), here and in every other row;'
        f" {_SAVE}"
    )


def refuse_printed(rows: Sequence[Row], column: str, *, allowed: str | None = None) -> None:
    """Refuse a column whose every text is a printed list or object; arguments as for `printed_column`.

    Raises:
        DataError: names the first of them, and says what to do.
    """
    problem = printed_column(rows, column, allowed=allowed)
    if problem is not None:
        raise DataError(problem)


def warn_of_lists(rows: Sequence[Row], column: str) -> None:
    """Log a warning where every right answer in a column looks like a list, and may be a text all the same.

    So do lists of printed lists, which are the way to give such a text, and brackets around words without quotation
    marks: those of DuckDB, but also of sounds in subtitles or of parse trees.
    """
    first: tuple[Row, str] | None = None
    certain = False
    for row in rows:
        value = lookup(row.values, column)
        for text in value if isinstance(value, list) else [value]:
            if text is None or (isinstance(text, str) and not _says_something(text)):
                continue
            if not isinstance(text, str):
                return
            text = text.strip()
            printed = printed_kind(text) is not None
            if not printed and not _UNQUOTED.fullmatch(text):
                return
            first = first or (row, text)
            certain = certain or printed or "," in text
    if first is not None and certain:
        row, text = first
        log.warning(
            '%s: column "%s" holds texts that look like lists (%s), here and in every other row; they count as texts.'
            " If they are lists, %s",
            row.where,
            column,
            _shown(text),
            _SAVE,
        )


def _says_something(text: str) -> bool:
    return len(text) <= _LONGEST and text.strip().casefold() not in _MISSING


def _shown(text: str) -> str:
    return " ".join((text[:_SHOWN] + "..." if len(text) > _SHOWN else text).split())
