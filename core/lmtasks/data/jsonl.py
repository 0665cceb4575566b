"""Reads JSONL: one object on each line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from lmtasks.data.rows import OnError, Row
from lmtasks.data.streams import open_bytes, read_lines
from lmtasks.data.values import finite
from lmtasks.errors import DataError
from lmtasks.text_utils import as_utf8

CONVERT_HINT = (
    "JSONL has one whole object on each line; convert it, for example with jq -c '.[]' (an array) or jq -c . (objects)"
)
"""Remedy for JSON that is not JSONL."""


def read_jsonl(path: Path, on_error: OnError | None = None) -> Iterator[Row]:
    """Yield the objects of a file; NaN and infinities, which JSON does not have, are null.

    Args:
        path: the file.
        on_error: called with the error of a bad line, which is then skipped; None: the error is raised.

    Raises:
        DataError: a line is not a JSON object or has a key twice; names file and line.
    """
    number = 0
    with open_bytes(path) as stream:
        for line_number, raw in enumerate(read_lines(path, stream), start=1):
            where = f"{path}, line {line_number}"
            try:
                line = _decode(where, raw, first=line_number == 1)
                if not line.strip():
                    continue
                number += 1
                row = Row(where, number, _parse(where, line, first=number == 1))
            except DataError as error:
                if on_error is None:
                    raise
                on_error(error)
            else:
                yield row


def _decode(where: str, raw: bytes, *, first: bool) -> str:
    try:
        # Files from Windows begin with a byte order mark; json.loads would refuse the line.
        return raw.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error


def parse_json(text: str) -> object:
    """Return the value of a JSON text; NaN, infinities and numbers beyond a float are None.

    Raises:
        ValueError: the text is not JSON, a number has thousands of digits, or an object has a key twice.
        RecursionError: it is nested too deeply.
    """
    return _DECODER.decode(text)


def _parse(where: str, line: str, *, first: bool) -> dict[str, object]:
    try:
        values = parse_json(line)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of too many digits
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            behind = line[error.pos :].strip()
            if behind == ",":
                raise DataError(
                    f"{where}: a comma after the object; a line of JSONL is only the object: remove the commas,"
                    " for example with sed 's/,[[:space:]]*$//'"
                ) from error
            if behind.startswith("{"):
                raise DataError(f"{where}: more than one object; {CONVERT_HINT}") from error
        if first and isinstance(error, json.JSONDecodeError) and line.rstrip().endswith(("{", "[", ",")):
            shape = "an array" if line.lstrip().startswith("[") else "an object"
            raise DataError(f"{where}: JSON with {shape} that spans several lines; {CONVERT_HINT}") from error
        if isinstance(error, _RepeatedKeyError):
            raise DataError(f"{where}: {error}; rename one of the two") from error
        what = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
        raise DataError(f"{where}: not JSON ({what}); each line must be one whole JSON object") from error
    if not isinstance(values, dict):
        hint = f"; {CONVERT_HINT}" if isinstance(values, list) else ""
        raise DataError(f"{where}: expected an object such as {{...}}, got {type(values).__name__}{hint}")
    return values


class _RepeatedKeyError(ValueError):
    """An object has a key twice."""


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = {as_utf8(key): value for key, value in pairs}
    if len(values) < len(pairs):
        keys = [as_utf8(key) for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _RepeatedKeyError(f'the key "{twice}" appears twice in one object')
    return values


_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_float=lambda text: finite(float(text)), parse_constant=lambda _: None
)
