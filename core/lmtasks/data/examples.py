"""Turns the rows of a data set into examples of a task."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from lmtasks.data.columns import Columns, lookup
from lmtasks.data.rows import Row
from lmtasks.data.values import Unreadable, as_text, kind_of
from lmtasks.errors import DataError, option
from lmtasks.languages import primary
from lmtasks.task import Example, Task

log = logging.getLogger("lmtasks.data")


def make_examples(
    task: Task, rows: Sequence[Row], columns: Columns, *, language: str | None, require_inputs: bool = True
) -> Iterator[Example]:
    """Turn rows into examples.

    Args:
        task: its fields become the inputs of the examples.
        rows: all rows of the data set.
        columns: the columns that `choose_columns` chose.
        language: language of the references of every example; None: as the rows say.
        require_inputs: refuse rows that lack a required field.

    Raises:
        DataError: a row lacks a required field, holds a value that is not text, repeats an id, or has no reference
            where others have one; names file, line and field.
    """
    seen: dict[str, str] = {}
    for row in rows:
        example = make_example(task, row, columns, language=language, require_inputs=require_inputs)
        if example.id in seen:
            raise DataError(
                f'{row.where}: duplicate id "{example.id}", first seen at {seen[example.id]}; ids must be unique'
            )
        seen[example.id] = row.where
        yield example


def make_example(
    task: Task, row: Row, columns: Columns, *, language: str | None, require_inputs: bool = True
) -> Example:
    """Turn a row into an example; arguments and errors as in `make_examples`, except that ids are not compared."""
    for column, expected in task.require_columns.items():
        value = lookup(row.values, column)
        if isinstance(value, str) and primary(value) != primary(expected):
            raise DataError(
                f'{row.where}: {column} is "{value}", but task "{task.name}" expects "{expected}";'
                " choose the task for this data"
            )
    inputs = {}
    for name, column in columns.fields.items():
        text = text_of(row, column)
        if text:
            inputs[name] = text
        elif task.fields[name].required and require_inputs:
            state = "is empty" if text == "" else "is missing"
            raise DataError(f'{row.where}: field "{name}" {state} (column "{column}"), expected text')
    answered = columns.references is not None or columns.reference is not None
    references, target = _references(task, row, columns) if answered else ((), None)
    return Example(
        id=(text_of(row, columns.id) if columns.id else None) or str(row.number),
        inputs=inputs,
        references=references,
        target=target,
        language=language or (text_of(row, columns.language) if columns.language else None) or None,
        meta=_meta(row, columns),
    )


def warn_of_damaged_columns(rows: Sequence[Row], columns: Columns) -> None:
    """Log a warning for each column with damaged values that no field needs."""
    damaged: dict[str, str] = {}
    for row in rows:
        for name, value in row.values.items():
            if name not in columns.used and isinstance(value, Unreadable) and value.damaged:
                damaged.setdefault(name, f"{row.where}: {value.kind}")
    for name, example in damaged.items():
        log.warning('column "%s", which the task does not need, is left out where it is damaged (%s)', name, example)


def warn_of_missing_ids(rows: Sequence[Row], columns: Columns) -> None:
    """Log a warning if some rows have no id, though others have: their row number is their id."""
    if columns.id is None:
        return
    without = [row for row in rows if (value := lookup(row.values, columns.id)) is None or as_text(value) == ""]
    if without:
        log.warning(
            '%s: %d of %d rows have no id in column "%s"; their row number is used (first: %s)',
            without[0].where.rpartition(",")[0] or without[0].where,
            len(without),
            len(rows),
            columns.id,
            without[0].where,
        )


def text_of(row: Row, column: str) -> str | None:
    """Return the text in a column of a row; None: it is empty.

    Raises:
        DataError: the value is neither text nor a number.
    """
    value = lookup(row.values, column)
    if value is None:
        return None
    text = as_text(value)
    if text is None:
        raise DataError(
            f'{row.where}: column "{column}" holds {kind_of(value)}, expected text; name another with'
            f" {option('columns', {'FIELD': 'COLUMN'})}"
        )
    return text


def drop_blank_references(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the references that hold text; ("",), which means that no answer is right, where none does.

    Tables are padded with empty references, which must not make an empty prediction right.

    Args:
        texts: references, "" for a blank one.
    """
    return tuple(text for text in texts if text) or ("",)


def _references(task: Task, row: Row, columns: Columns) -> tuple[tuple[str, ...], str | None]:
    column, value = columns.reference, lookup(row.values, columns.reference) if columns.reference else None
    reference = value
    if columns.references and (several := lookup(row.values, columns.references)) is not None:
        column, value = columns.references, several
    if value is None:
        raise DataError(
            f"{row.where}: no reference (column {columns.reference or columns.references}), though other rows have one"
        )
    texts = []
    for item in value if isinstance(value, list) else [value]:
        text = "" if item is None else as_text(item)
        if text is None:
            held = f"{kind_of(item)} in its list" if isinstance(value, list) else kind_of(item)
            raise DataError(f'{row.where}: column "{column}" holds {held}, expected text or a list of texts')
        texts.append(text)
    references = drop_blank_references(texts)
    if references == ("",):
        if task.output.no_answer is None:
            raise DataError(
                f'{row.where}: column "{column}" holds no reference, and task "{task.name}" has no form for'
                " an answer that says so"
            )
        return references, task.output.no_answer
    target = as_text(reference) if isinstance(reference, str) else None
    return references, target or None


def _meta(row: Row, columns: Columns) -> dict[str, str]:
    rest = ((name, as_text(value)) for name, value in row.values.items() if name not in columns.used)
    return {name: text for name, text in rest if text}
