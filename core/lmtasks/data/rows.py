"""From a file or hub set to rows, each with the place it stands, so that an error can point there."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from lmtasks.errors import DataError

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")


class Row(NamedTuple):
    """One record of a data set: column name to value, nested ones as they came."""

    where: str
    """For messages: "data.jsonl, line 3"."""
    number: int
    """Its place among the rows, from 1: the same in every file format."""
    values: Mapping[str, object]


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a JSONL, CSV, TSV or Parquet file, lazily.

    Raises:
        DataError: the file is missing, of another kind, or a line cannot be read; names file and line.
    """
    if path.is_dir():
        raise DataError(f"{path}: a folder; name one of the data files in it, or hub:{path} for a data set's folder")
    if not path.is_file():
        raise DataError(f"{path}: no such data file")
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return _read_jsonl(path)
    if suffix in (".csv", ".tsv"):
        return _read_table(path, delimiter="\t" if suffix == ".tsv" else ",")
    if suffix == ".parquet":
        return _read_parquet(path)
    raise DataError(
        f"{path}: cannot tell what kind of data this is; expected a name that ends in {', '.join(SUFFIXES)}"
    )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_jsonl(path: Path) -> Iterator[Row]:
    number = 0
    with path.open("rb") as lines:
        for line_number, raw in enumerate(lines, start=1):
            where = f"{path}, line {line_number}"
            try:
                # Files from Windows begin with a byte order mark; json.loads would refuse the line.
                line = raw.decode("utf-8-sig" if line_number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{where}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:  # ValueError: also a number of too many digits
                what = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
                raise DataError(f"{where}: not JSON ({what}); each line must be one whole JSON object") from error
            if not isinstance(values, dict):
                raise DataError(f"{where}: expected an object such as {{...}}, got {type(values).__name__}")
            number += 1
            yield Row(where, number, values)


def _read_table(path: Path, *, delimiter: str) -> Iterator[Row]:
    # The default limit of 131,072 characters a cell is shorter than a long article.
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
        try:
            twice = [name for name, count in Counter(reader.fieldnames or ()).items() if count > 1]
            if twice:
                raise DataError(f'{path}, line 1: two columns are named "{twice[0]}"')
            for number, values in enumerate(reader, start=1):
                where = f"{path}, line {reader.line_num}"
                if None in values:
                    raise DataError(
                        f"{where}: more cells than the header has columns; put quotes around cells that contain"
                        f" {delimiter!r}"
                    )
                yield Row(where, number, {name: cell for name, cell in values.items() if cell})
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, line {_undecodable_line(path)}: not UTF-8; save the file as UTF-8") from error
        except csv.Error as error:
            # DictReader itself does not count the line that it failed on.
            what = str(error).replace("\t", "tab")
            raise DataError(
                f"{path}, line {reader.reader.line_num}: {what}; a cell that holds a quotation mark stands in quotation"
                " marks, with its own doubled. JSONL needs no such care"
            ) from error
        finally:
            csv.field_size_limit(limit)


def _undecodable_line(path: Path) -> int:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 1


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{path}, row {number}", number, values)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error
