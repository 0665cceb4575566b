"""From the rows of a data set to the examples of a task."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from lmtasks.data.columns import Columns, lookup
from lmtasks.data.rows import Row
from lmtasks.data.values import Unreadable, as_text, kind
from lmtasks.errors import DataError, option
from lmtasks.languages import primary
from lmtasks.task import Example, Task

log = logging.getLogger("lmtasks.data")


def make_examples(
    task: Task, rows: Sequence[Row], columns: Columns, *, language: str | None, require_inputs: bool = True
) -> Iterator[Example]:
    """Turn rows into examples.

    Args:
        task: whose fields the examples have.
        rows: all rows of the data set.
        columns: what `choose_columns` chose for them.
        language: of the references of every example; None: as the rows say.
        need_inputs: whether a row must hold every required field.

    Raises:
        DataError: a row lacks a required field, holds something else than text, repeats an id, or has no right
            answer where others have one; names file, line and field.
    """
    seen: dict[str, str] = {}
    for row in rows:
        example = make_example(task, row, columns, language=language, require_inputs=require_inputs)
        if example.id in seen:
            raise DataError(f'{row.where}: id "{example.id}" stands already at {seen[example.id]}; ids must be unique')
        seen[example.id] = row.where
        yield example


def make_example(
    task: Task, row: Row, columns: Columns, *, language: str | None, require_inputs: bool = True
) -> Example:
    """Turn a row into an example; arguments and errors are those of `make_examples`, but for the ids of other rows."""
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
    answered = columns.listed is not None or columns.single is not None
    references, target = _references(task, row, columns) if answered else ((), None)
    return Example(
        id=(text_of(row, columns.id) if columns.id else None) or str(row.number),
        inputs=inputs,
        references=references,
        target=target,
        language=language or (text_of(row, columns.language) if columns.language else None) or None,
        meta=_meta(row, columns),
    )


def warn_of_damage(rows: Sequence[Row], columns: Columns) -> None:
    """Log once for each column that no field needs that its damaged values are left out."""
    damaged: dict[str, str] = {}
    for row in rows:
        for name, value in row.values.items():
            if name not in columns.used and isinstance(value, Unreadable) and value.damaged:
                damaged.setdefault(name, f"{row.where}: {value.kind}")
    for name, place in damaged.items():
        log.warning('column "%s", which the task does not need, is left out where it is damaged (%s)', name, place)


def warn_of_missing_ids(rows: Sequence[Row], columns: Columns) -> None:
    """Log once that rows are known by their number, where others have an id."""
    if columns.id is None:
        return
    without = [row for row in rows if (value := lookup(row.values, columns.id)) is None or as_text(value) == ""]
    if without:
        log.warning(
            '%s: %d of %d rows have no id in column "%s", and have their place among all rows as their id (first: %s)',
            without[0].where.rpartition(",")[0] or without[0].where,
            len(without),
            len(rows),
            columns.id,
            without[0].where,
        )


def text_of(row: Row, column: str) -> str | None:
    """Return the text in a column of a row; None: nothing stands there.

    Raises:
        DataError: there is something else than a text or a number.
    """
    value = lookup(row.values, column)
    if value is None:
        return None
    text = as_text(value)
    if text is None:
        raise DataError(
            f'{row.where}: column "{column}" holds {kind(value)}, expected text; name another with'
            f" {option('columns', {'FIELD': 'COLUMN'})}"
        )
    return text


def right_answers(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the alternatives that hold text, or ("",), which says that no answer is right, where none does.

    Tables are padded to one length with empty alternatives, which must not make an empty output right.

    Args:
        texts: alternatives, "" for a blank one.
    """
    return tuple(text for text in texts if text) or ("",)


def _references(task: Task, row: Row, columns: Columns) -> tuple[tuple[str, ...], str | None]:
    single = lookup(row.values, columns.single) if columns.single else None
    listed = lookup(row.values, columns.listed) if columns.listed else None
    column, value = (columns.listed, listed) if listed is not None else (columns.single, single)
    if value is None:
        raise DataError(
            f"{row.where}: no right answer (column {columns.single or columns.listed}), though other rows have one"
        )
    texts = []
    for item in value if isinstance(value, list) else [value]:
        text = "" if item is None else as_text(item)
        if text is None:
            held = f"{kind(item)} in its list" if isinstance(value, list) else kind(item)
            raise DataError(f'{row.where}: column "{column}" holds {held}, expected text or a list of texts')
        texts.append(text)
    references = right_answers(texts)
    if references == ("",):
        if task.no_answer is None:
            raise DataError(
                f'{row.where}: column "{column}" holds no right answer, and task "{task.name}" has no way to say'
                " that there is none"
            )
        return references, task.no_answer
    target = as_text(single) if isinstance(single, str) else None
    return references, target or None


def _meta(row: Row, columns: Columns) -> dict[str, str]:
    rest = ((name, as_text(value)) for name, value in row.values.items() if name not in columns.used)
    return {name: text for name, text in rest if text}
