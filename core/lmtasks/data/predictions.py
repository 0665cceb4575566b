"""Outputs that were made elsewhere: read from a file, and matched with the examples that they answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lmtasks.data.columns import as_text, choose_column, lookup
from lmtasks.data.rows import SUFFIXES, Row, read_rows
from lmtasks.errors import DataError
from lmtasks.task import Example

PREDICTIONS = ("prediction", "hypothesis", "output", "completion", "generated")
"""Columns that outputs are known by, best first; none that inputs or references are known by too."""
TABLES = (".csv", ".tsv")
_NAMED = 3
"""Ids that a message lists."""


def read_predictions(path: Path, examples: Sequence[Example], *, column: str | None = None) -> list[str]:
    """Return an output for each example, in their order.

    A JSONL, CSV, TSV or Parquet file is matched by its column "id"; any other file holds an output a line, in the
    order of the examples, and an empty line is an empty output.

    Args:
        path: of the file.
        examples: what the outputs answer.
        column: that holds the outputs; None: the first of `PREDICTIONS` that there is.

    Raises:
        DataError: there are more or fewer outputs than examples, ids do not match, or the file cannot be read.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file of predictions")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise DataError(f"{path}: {what}; predictions are read from a file, so that its hash can be kept")
    if path.suffix.lower() == ".json":
        raise DataError(f'{path}: save it as .jsonl, a line {{"id": ..., "prediction": ...}} for each example')
    if path.suffix.lower() not in SUFFIXES:
        if column:
            raise DataError(f'{path}: has lines and no column "{column}"; columns are read from {", ".join(SUFFIXES)}')
        return _by_line(path, examples)
    return _by_id(path, list(read_rows(path)), examples, column)


def _by_line(path: Path, examples: Sequence[Example]) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from error
    # Only "\n" ends a line: other separators of Unicode, which splitlines() knows, may stand within an output.
    lines = [line.strip() for line in text.removesuffix("\n").split("\n")] if text else []
    if len(lines) != len(examples):
        raise DataError(
            f"{path}: {len(lines)} lines, but the data has {len(examples)} examples; without ids each line answers the"
            " example at its place, so the counts must be equal"
        )
    return lines


def _by_id(path: Path, rows: Sequence[Row], examples: Sequence[Example], column: str | None) -> list[str]:
    found: dict[str, str] = {}
    if rows:
        chosen = choose_column(rows, "prediction", (column,) if column else PREDICTIONS)
    for row in rows:
        id = as_text(row.values.get("id"))
        if not id:
            raise DataError(f'{row.where}: no "id" to match it with an example; plain lines are matched by position')
        if id in found:
            raise DataError(f'{row.where}: id "{id}" has a prediction already; ids must be unique')
        value = lookup(row.values, chosen)
        # Rows of a table lack their empty cells; in others only a null stands for nothing.
        empty = value is None and (chosen in row.values or path.suffix.lower() in TABLES)
        text = "" if empty else as_text(value)
        if text is None:
            held = "is missing" if value is None else f"holds a {type(value).__name__}"
            raise DataError(f'{row.where}: column "{chosen}" {held}, expected text')
        found[id] = text
    ids = [example.id for example in examples]
    for wrong, what, of in (
        ([id for id in ids if id not in found], "no prediction for", f"{len(ids)} examples"),
        (sorted(found.keys() - set(ids)), "the data has no example for", f"{len(found)} predictions"),
    ):
        if wrong:
            listed = ", ".join(wrong[:_NAMED]) + (", ..." if len(wrong) > _NAMED else "")
            raise DataError(f"{path}: {what} {listed} ({len(wrong)} of {of})")
    return [found[id] for id in ids]
