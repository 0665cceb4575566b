"""From a file to rows, each with the place it stands, so that an error can point there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmtasks.data.jsonl import CONVERT, read_jsonl
from lmtasks.data.parquet_file import read_parquet
from lmtasks.data.rows import OnError, Row
from lmtasks.data.streams import COMPRESSIONS, check_file, suffixes
from lmtasks.data.tables import read_table
from lmtasks.errors import DataError
from lmtasks.files import sha256_file

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
"""Of the files that have columns; all but the last may have one of `COMPRESSIONS` behind it."""


def has_columns(path: Path) -> bool:
    """Return whether a file's name says that it holds rows with columns."""
    return suffixes(path)[0] in SUFFIXES


def read_rows(path: Path, on_error: OnError | None = None) -> Iterator[Row]:
    """Yield the rows of a JSONL, CSV, TSV or Parquet file, lazily.

    Args:
        path: of the file.
        on_error: gets what is wrong with a single row, which is then left out; None: it is raised.

    Raises:
        DataError: the file is missing, of another kind, or a line cannot be read; names file and line.
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
        raise DataError(f"{path}: JSON is read as JSONL, from a file named .jsonl; {CONVERT}")
    raise DataError(
        f"{path}: cannot tell what kind of data this is; expected a name that ends in {', '.join(SUFFIXES)}, or in one"
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
