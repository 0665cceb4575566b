"""Reads predictions from a file and matches them with examples."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from lmtasks.data.columns import choose_column, lookup
from lmtasks.data.files import DATA_SUFFIXES, has_columns, read_rows
from lmtasks.data.list_literals import JSON_OBJECT, literal_kind, refuse_literals
from lmtasks.data.rows import Row
from lmtasks.data.streams import check_file, open_bytes, read_lines, suffixes
from lmtasks.data.values import as_text, kind_of
from lmtasks.errors import DataError
from lmtasks.paths import user_path
from lmtasks.task import Example

PREDICTION_COLUMNS = ("prediction", "hypothesis", "output", "completion", "generated")
"""Names of columns with predictions, best first; none of them is a known name for inputs or references."""
TABLE_SUFFIXES = (".csv", ".tsv")
log = logging.getLogger("lmtasks.data")
_QUOTED = re.compile(r"\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\"|'[^'\\]*+(?:\\.[^'\\]*+)*+'")
"""A text in quotation marks, with only escaped ones inside."""
_MAX_LISTED = 3
"""Number of ids that a message lists."""
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?")


def read_predictions(path: str | Path, examples: Sequence[Example], *, column: str | None = None) -> list[str]:
    """Return a prediction for each example, in the order of the examples.

    A JSONL, CSV, TSV or Parquet file is matched by its column "id"; any other file has one prediction a line, in the
    order of the examples, and an empty line is an empty prediction. All but Parquet may be compressed (.gz, .zst, ...).

    Args:
        path: the file.
        examples: the examples that the predictions belong to.
        column: the column with the predictions; None: the first of `PREDICTION_COLUMNS` that the file has.

    Raises:
        DataError: the numbers of predictions and examples differ, ids do not match, or the file cannot be read.
        PathError: no file can have this name.
    """
    path = user_path(path, "file of predictions")
    check_file(path, "file of predictions")
    if suffixes(path)[0] == ".json":
        raise DataError(f'{path}: save it as .jsonl, a line {{"id": ..., "prediction": ...}} for each example')
    if not has_columns(path):
        if column:
            raise DataError(
                f'{path}: has lines and no column "{column}"; columns are read from {", ".join(DATA_SUFFIXES)}'
            )
        return _by_line(path, examples)
    rows = list(read_rows(path))
    outputs = _outputs(path, rows, examples, column) if rows else {}
    return _match_examples(path, outputs, [example.id for example in examples])


def _by_line(path: Path, examples: Sequence[Example]) -> list[str]:
    outputs: list[str] = []
    count = 0
    with open_bytes(path) as stream:
        # Only "\n" ends a line: other separators of Unicode, which splitlines() knows, may stand within an output.
        for count, raw in enumerate(read_lines(path, stream), start=1):
            if count > len(examples):
                continue
            try:
                line = raw.decode("utf-8-sig" if count == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}, line {count}: not UTF-8; save the file as UTF-8") from error
            if "\0" in line:
                raise DataError(
                    f"{path}, line {count}: holds a NUL character, so it is binary data or UTF-16; save the file as"
                    " UTF-8"
                )
            outputs.append(as_text(line) or "")
    problem = _format_problem([text for text in outputs if text], examples)
    if problem is not None:
        raise DataError(f"{path}: {problem}")
    if count != len(examples):
        raise DataError(
            f"{path}: {count} lines, but the data has {len(examples)} examples; without ids the n-th line belongs"
            " to the n-th example, so the numbers must be equal"
        )
    return outputs


def _format_problem(lines: Sequence[str], examples: Sequence[Example]) -> str | None:
    """Return which other format the lines are written in; None: they are plain text.

    Args:
        lines: the lines that are not empty.
        examples: the examples they belong to; predictions may look as their references do.
    """
    references = [text for example in examples for text in example.references]
    kinds = {literal_kind(line) for line in lines}
    if kinds == {JSON_OBJECT} and not any(literal_kind(text) for text in references):
        return "every line is a JSON object; if they hold predictions and ids, rename the file to .jsonl"
    if lines and None not in kinds and not any(literal_kind(text) for text in references):
        return (
            f"every line is {literal_kind(lines[0])} written as text; write only the prediction on each line, or save"
            ' JSONL with a line {"id": ..., "prediction": ...} for each example'
        )
    if lines and all(map(_QUOTED.fullmatch, lines)) and not any(map(_QUOTED.fullmatch, references)):
        return (
            "every line is in quotation marks, as JSON and Python write texts; write only the text on each line."
            ' If the predictions themselves have them, save JSONL with a line {"id": ..., "prediction": ...} for each'
            " example"
        )
    ids = {example.id for example in examples}
    for separator, suffix in ((",", ".csv"), ("\t", ".tsv")):
        header, *rows = ([cell.strip(' "') for cell in line.split(separator)] for line in lines or [""])
        if (
            rows
            and not set(header).isdisjoint(PREDICTION_COLUMNS)
            and all(len(row) > 1 and row[0] in ids for row in rows)
        ):
            return f"the lines are rows of a table, with ids; rename the file to {suffix}"
    return None


def _outputs(path: Path, rows: Sequence[Row], examples: Sequence[Example], column: str | None) -> dict[str, str]:
    """Return the predictions of a file by id."""
    chosen = choose_column(rows, "prediction", (column,) if column else PREDICTION_COLUMNS)
    if not any(literal_kind(text) for example in examples for text in example.references):
        refuse_literals(rows, chosen)
    outputs: dict[str, str] = {}
    for row in rows:
        id = as_text(row.values.get("id"))
        if not id:
            raise DataError(f'{row.where}: no "id" to match it with an example; only plain lines need none')
        if id in outputs:
            raise DataError(f'{row.where}: id "{id}" has two predictions; ids must be unique')
        value = lookup(row.values, chosen)
        # Rows of a table lack their empty cells; elsewhere only null is an empty value.
        empty = value is None and (chosen in row.values or suffixes(path)[0] in TABLE_SUFFIXES)
        text = "" if empty else as_text(value)
        if text is None:
            held = "is missing" if value is None else f"holds {kind_of(value)}"
            raise DataError(f'{row.where}: column "{chosen}" {held}, expected text')
        outputs[id] = text
    return outputs


def _match_examples(path: Path, outputs: Mapping[str, str], ids: Sequence[str]) -> list[str]:
    renamed = _match_by_number([id for id in ids if id not in outputs], outputs.keys() - set(ids))
    if renamed:
        first, other = next(iter(renamed.items()))
        log.warning(
            '%s: %d of %d ids are written differently in the data and were matched as numbers (first: "%s" is'
            ' "%s" in the data)',
            path,
            len(renamed),
            len(ids),
            other,
            first,
        )
    named = {id: renamed.get(id, id) for id in ids}
    for wrong, what, of in (
        ([id for id in ids if named[id] not in outputs], "no prediction for", f"{len(ids)} examples"),
        (sorted(outputs.keys() - set(named.values())), "the data has no example for", f"{len(outputs)} predictions"),
    ):
        if wrong:
            listed = ", ".join(wrong[:_MAX_LISTED]) + (", ..." if len(wrong) > _MAX_LISTED else "")
            raise DataError(f"{path}: {what} {listed} ({len(wrong)} of {of})")
    return [outputs[named[id]] for id in ids]


def _match_by_number(wanted: Iterable[str], given: Iterable[str]) -> dict[str, str]:
    """Map wanted ids to given ids that are the same number, such as "101" and "1.01e2", where both are unique.

    Tables and typed formats write a number in different ways.
    """
    by_number = _by_number(given)
    return {id: by_number[number] for number, id in _by_number(wanted).items() if number in by_number}


def _by_number(ids: Iterable[str]) -> dict[Decimal, str]:
    numbers = {id: Decimal(id) for id in ids if _NUMBER.fullmatch(id)}
    counts = Counter(numbers.values())
    return {number: id for id, number in numbers.items() if counts[number] == 1}
