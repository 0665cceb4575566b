"""Reads a data file into rows that know their file and line, for error messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmtasks.data.jsonl import CONVERT_HINT, read_jsonl
from lmtasks.data.parquet_file import read_parquet
from lmtasks.data.rows import OnError, Row
from lmtasks.data.streams import COMPRESSIONS, check_file, suffixes
from lmtasks.data.tables import read_table
from lmtasks.errors import DataError
from lmtasks.files import sha256_file

DATA_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
"""Suffixes of files with columns; all but the last may be followed by one of `COMPRESSIONS`."""


def has_columns(path: Path) -> bool:
    """Return whether the file's suffix stands for rows with columns."""
    return suffixes(path)[0] in DATA_SUFFIXES


def read_rows(path: Path, on_error: OnError | None = None) -> Iterator[Row]:
    """Yield the rows of a JSONL, CSV, TSV or Parquet file, lazily.

    Args:
        path: the file.
        on_error: called with the error of a single row, which is then skipped; None: the error is raised.

    Raises:
        DataError: the file is missing or of another format, or a line cannot be read; names file and line.
    """
    if path.is_dir():
        raise DataError(f"{path}: a folder; name one of the data files in it, or hub:{path} for a data set's folder")
    check_file(path, "data file")
    suffix, compression = suffixes(path)
    if suffix in (".jsonl", ".ndjson"):
        return read_jsonl(path, on_error)
    if suffix in (".csv", ".tsv"):
        return read_table(path, on_error, delimiter="\t" if suffix == ".tsv" else ",")
    if suffix == ".parquet" and not compression:
        return read_parquet(path)
    if suffix == ".parquet":
        raise DataError(f"{path}: Parquet is compressed inside; decompress the file to {path.stem}")
    if suffix == ".json":
        raise DataError(f"{path}: JSON is read as JSONL, from a file named .jsonl; {CONVERT_HINT}")
    raise DataError(
        f"{path}: unknown format; expected a name that ends in {', '.join(DATA_SUFFIXES)}, or in one"
        f" of these (but .parquet) and {', '.join(COMPRESSIONS)}"
    )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return sha256_file(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
