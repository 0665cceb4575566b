"""Outputs that were made elsewhere: read from a file, and matched with the examples that they answer."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from lmtasks.data.columns import choose_column, lookup
from lmtasks.data.files import SUFFIXES, has_columns, read_rows
from lmtasks.data.list_literals import JSON_OBJECT, printed_kind, refuse_printed
from lmtasks.data.rows import Row
from lmtasks.data.streams import check_file, open_bytes, read_lines, suffixes
from lmtasks.data.values import as_text, kind
from lmtasks.errors import DataError
from lmtasks.paths import user_path
from lmtasks.task import Example

PREDICTIONS = ("prediction", "hypothesis", "output", "completion", "generated")
"""Columns that outputs are known by, best first; none that inputs or references are known by too."""
TABLES = (".csv", ".tsv")
log = logging.getLogger("lmtasks.data")
_QUOTED = re.compile(r"\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\"|'[^'\\]*+(?:\\.[^'\\]*+)*+'")
"""A text in quotation marks that has none of these inside, but escaped."""
_NAMED = 3
"""Ids that a message lists."""
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?")


def read_predictions(path: str | Path, examples: Sequence[Example], *, column: str | None = None) -> list[str]:
    """Return an output for each example, in their order.

    A JSONL, CSV, TSV or Parquet file is matched by its column "id"; any other file holds an output a line, in the
    order of the examples, and an empty line is an empty output. All but Parquet may be compressed (.gz, .zst, ...).

    Args:
        path: of the file.
        examples: what the outputs answer.
        column: that holds the outputs; None: the first of `PREDICTIONS` that there is.

    Raises:
        DataError: there are more or fewer outputs than examples, ids do not match, or the file cannot be read.
        PathError: no file can have this name.
    """
    path = user_path(path, "file of predictions")
    check_file(path, "file of predictions")
    if suffixes(path)[0] == ".json":
        raise DataError(f'{path}: save it as .jsonl, a line {{"id": ..., "prediction": ...}} for each example')
    if not has_columns(path):
        if column:
            raise DataError(f'{path}: has lines and no column "{column}"; columns are read from {", ".join(SUFFIXES)}')
        return _by_line(path, examples)
    rows = list(read_rows(path))
    outputs = _outputs(path, rows, examples, column) if rows else {}
    return _in_order(path, outputs, [example.id for example in examples])


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
    problem = _not_plain([text for text in outputs if text], examples)
    if problem is not None:
        raise DataError(f"{path}: {problem}")
    if count != len(examples):
        raise DataError(
            f"{path}: {count} lines, but the data has {len(examples)} examples; without ids each line answers the"
            " example at its place, so the counts must be equal"
        )
    return outputs


def _not_plain(lines: Sequence[str], examples: Sequence[Example]) -> str | None:
    """Return what lines are that are no outputs but hold them, in another format; None: they are plain text.

    Args:
        lines: those that are not empty.
        examples: what they answer; outputs may well look as references do.
    """
    references = [text for example in examples for text in example.references]
    kinds = {printed_kind(line) for line in lines}
    if kinds == {JSON_OBJECT} and not any(printed_kind(text) for text in references):
        return "every line is a JSON object; if these hold outputs and ids, rename the file to .jsonl"
    if lines and None not in kinds and not any(printed_kind(text) for text in references):
        return (
            f"every line is {printed_kind(lines[0])} written as text; write the output alone on each line, or save"
            ' JSONL with a line {"id": ..., "prediction": ...} for each example'
        )
    if lines and all(map(_QUOTED.fullmatch, lines)) and not any(map(_QUOTED.fullmatch, references)):
        return (
            "every line stands in quotation marks, as JSON and Python write texts; write the text alone on each line."
            ' If the outputs themselves have them, save JSONL with a line {"id": ..., "prediction": ...} for each'
            " example"
        )
    ids = {example.id for example in examples}
    for separator, suffix in ((",", ".csv"), ("\t", ".tsv")):
        header, *rows = ([cell.strip(' "') for cell in line.split(separator)] for line in lines or [""])
        if rows and not set(header).isdisjoint(PREDICTIONS) and all(len(row) > 1 and row[0] in ids for row in rows):
            return f"the lines are rows of a table, with ids; rename the file to {suffix}"
    return None


def _outputs(path: Path, rows: Sequence[Row], examples: Sequence[Example], column: str | None) -> dict[str, str]:
    """Return the output of each id in a file."""
    chosen = choose_column(rows, "prediction", (column,) if column else PREDICTIONS)
    if not any(printed_kind(text) for example in examples for text in example.references):
        refuse_printed(rows, chosen)
    outputs: dict[str, str] = {}
    for row in rows:
        id = as_text(row.values.get("id"))
        if not id:
            raise DataError(f'{row.where}: no "id" to match it with an example; plain lines are matched by position')
        if id in outputs:
            raise DataError(f'{row.where}: id "{id}" has a prediction already; ids must be unique')
        value = lookup(row.values, chosen)
        # Rows of a table lack their empty cells; in others only a null stands for nothing.
        empty = value is None and (chosen in row.values or suffixes(path)[0] in TABLES)
        text = "" if empty else as_text(value)
        if text is None:
            held = "is missing" if value is None else f"holds {kind(value)}"
            raise DataError(f'{row.where}: column "{chosen}" {held}, expected text')
        outputs[id] = text
    return outputs


def _in_order(path: Path, outputs: Mapping[str, str], ids: Sequence[str]) -> list[str]:
    same = _same_numbers([id for id in ids if id not in outputs], outputs.keys() - set(ids))
    if same:
        first, other = next(iter(same.items()))
        log.warning(
            '%s: %d of %d ids are written otherwise than in the data and were matched by their number (first: "%s" is'
            ' "%s" in the data)',
            path,
            len(same),
            len(ids),
            other,
            first,
        )
    named = {id: same.get(id, id) for id in ids}
    for wrong, what, of in (
        ([id for id in ids if named[id] not in outputs], "no prediction for", f"{len(ids)} examples"),
        (sorted(outputs.keys() - set(named.values())), "the data has no example for", f"{len(outputs)} predictions"),
    ):
        if wrong:
            listed = ", ".join(wrong[:_NAMED]) + (", ..." if len(wrong) > _NAMED else "")
            raise DataError(f"{path}: {what} {listed} ({len(wrong)} of {of})")
    return [outputs[named[id]] for id in ids]


def _same_numbers(wanted: Iterable[str], given: Iterable[str]) -> dict[str, str]:
    """Return which given id is the same number as a wanted one, as "101" and "1.01e2" are, where only one of each is.

    Tables and typed formats write a number in different ways.
    """
    by_number = _by_number(given)
    return {id: by_number[number] for number, id in _by_number(wanted).items() if number in by_number}


def _by_number(ids: Iterable[str]) -> dict[Decimal, str]:
    numbers = {id: Decimal(id) for id in ids if _NUMBER.fullmatch(id)}
    counts = Counter(numbers.values())
    return {number: id for id, number in numbers.items() if counts[number] == 1}
