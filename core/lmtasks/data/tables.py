"""Reads CSV and TSV; cells stay as they are written."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from lmtasks.data.rows import OnError, Row
from lmtasks.data.streams import MAX_LINE, line_too_long, open_bytes, read_lines
from lmtasks.errors import DataError


def read_table(path: Path, on_error: OnError | None = None, *, delimiter: str) -> Iterator[Row]:
    """Yield the rows of a file whose first line names the columns; empty cells are skipped.

    Args:
        path: the file.
        on_error: called with the error of a row with too many cells, which is then skipped; None: it is raised.
        delimiter: the character between cells.

    Raises:
        DataError: a line cannot be read; names file and line.
    """
    # The default limit of 131,072 characters a cell is shorter than a long article.
    limit = csv.field_size_limit(MAX_LINE)
    try:
        with open_bytes(path) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            reader = csv.DictReader(_lines(path, text), delimiter=delimiter, strict=True)
            try:
                yield from _rows(path, reader, delimiter, on_error)
            except UnicodeDecodeError as error:
                line = _undecodable_line(path)
                raise DataError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from error
            except csv.Error as error:
                # DictReader does not count the line that it failed on.
                what = str(error).replace("\t", "tab")
                raise DataError(
                    f"{path}, line {reader.reader.line_num}: {what}; a cell with a quotation mark must be in"
                    " quotation marks, with those inside doubled. JSONL does not need this"
                ) from error
    finally:
        csv.field_size_limit(limit)


def _rows(path: Path, reader: csv.DictReader[str], delimiter: str, on_error: OnError | None) -> Iterator[Row]:
    duplicates = [name for name, count in Counter(reader.fieldnames or ()).items() if count > 1]
    if duplicates:
        raise DataError(f'{path}, line 1: two columns are named "{duplicates[0]}"')
    if delimiter == "," and "\t" in next(iter(reader.fieldnames or ()), ""):
        raise DataError(f"{path}, line 1: cells are separated by tabs, not commas; name the file .tsv instead of .csv")
    for number, values in enumerate(reader, start=1):
        where = f"{path}, line {reader.line_num}"
        if None in values:
            error = DataError(
                f"{where}: more cells than the header has columns; put quotes around cells that contain {delimiter!r}"
            )
            if on_error is None:
                raise error
            on_error(error)
            continue
        yield Row(where, number, {name: cell for name, cell in values.items() if cell})


def _lines(path: Path, text: TextIO) -> Iterator[str]:
    number = 0
    while line := text.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE and not line.endswith(("\n", "\r")):
            raise line_too_long(path, number)
        if "\0" in line:
            raise DataError(
                f"{path}, line {number}: holds a NUL character, so it is binary data or UTF-16; save the file as UTF-8"
            )
        yield line


def _undecodable_line(path: Path) -> int:
    with open_bytes(path) as stream:
        for number, line in enumerate(read_lines(path, stream), start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 1
