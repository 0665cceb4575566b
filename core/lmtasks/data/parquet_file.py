"""Reads Parquet files column by column, so that a damaged column fails only tasks that need it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmtasks.data.arrow_values import BATCH_ROWS, python_values, repeated_name
from lmtasks.data.rows import Row
from lmtasks.data.values import Unreadable
from lmtasks.errors import DataError


def read_parquet(path: Path) -> Iterator[Row]:
    """Yield the rows of a file.

    Each column is read by itself, and its unreadable values become `Unreadable`: which columns the task needs is
    decided later, in the same way for all formats.

    Raises:
        DataError: the file is not Parquet, its footer is damaged, or two columns have the same name.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with path.open("rb") as head:
            magic = head.read(4)
        if magic not in (b"PAR1", b"PARE"):
            what = "it does not begin with PAR1" if magic else "it is empty"
            raise DataError(f"{path}: not a readable Parquet file: {what}")
        file = parquet.ParquetFile(path)
        names = [field.name for field in file.schema_arrow]
        rows = file.metadata.num_rows
        duplicate = repeated_name(file.schema_arrow)
    except (pyarrow.ArrowException, OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {_in_one_line(error)}") from error
    with file:
        if duplicate is not None:
            raise DataError(f'{path}: two columns are named "{duplicate}"; rename one of them')
        if not names:
            raise DataError(f"{path}: has no columns")
        columns = [_read_column(file, name) for name in names]
        for number in range(1, rows + 1):
            values = {name: next(column) for name, column in zip(names, columns, strict=True)}
            first = next(iter(values.values()))
            # A damaged footer may claim any number of rows.
            if isinstance(first, Unreadable) and all(_is_damaged(value) for value in values.values()):
                raise DataError(f"{path}, row {number}: no column can be read here: {first.kind}")
            yield Row(f"{path}, row {number}", number, values)


def _read_column(file: Any, name: str) -> Iterator[object]:
    """Yield the values of a column; once it is damaged, `Unreadable` without end."""
    import pyarrow

    try:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[name]):
            yield from python_values(batch.column(name))
        reason = "it has fewer values than the file has rows"
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        reason = _in_one_line(error)
    while True:
        yield Unreadable(f"damaged data ({reason})", damaged=True)


def _is_damaged(value: object) -> bool:
    return isinstance(value, Unreadable) and value.damaged


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
