"""Matches the columns of a data set with the fields of a task."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmtasks.data.rows import Row
from lmtasks.errors import DataError, option
from lmtasks.task import Task

REFERENCE_COLUMNS = ("references", "reference", "target")
"""Names of columns with references, for any task."""
REFERENCES_COLUMN = "references"
"""The column with a list of references; where a row has it, it wins over a column with a single one."""
SPLIT_COLUMN = "split"
LANGUAGE_COLUMNS = ("language", "lang")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns chosen for a data set; the same for all its rows."""

    fields: Mapping[str, str]
    references: str | None
    """The column with all references of a row."""
    reference: str | None
    """The column with a single reference, which is also the training target."""
    id: str | None
    language: str | None

    @property
    def answer_columns(self) -> list[str]:
        """Columns with references."""
        return [column for column in (self.references, self.reference) if column]

    @property
    def used(self) -> set[str]:
        """Top-level columns that are used; the others of a row become its `meta`."""
        chosen = [*self.fields.values(), self.references, self.reference, self.id, self.language, SPLIT_COLUMN]
        return {name for column in chosen if column for name in (column, column.partition(".")[0])}


def choose_column(rows: Sequence[Row], meaning: str, known: Sequence[str]) -> str:
    """Return the first of the known column names that any row has.

    Raises:
        DataError: no row has one of them; names the columns of the data.
    """
    present, objects = _present(rows)
    column = _first(known, present, objects)
    if column is None:
        raise DataError(
            f'{_origin(rows)}: no column "{meaning}" (looked for {", ".join(known)}); {_columns_hint(present, meaning)}'
            f" Name it with {option('columns', {meaning: 'COLUMN'})}"
        )
    return column


def choose_columns(
    task: Task,
    rows: Sequence[Row],
    mapping: Mapping[str, str],
    *,
    ignore_unknown_columns: bool = False,
    require_inputs: bool = True,
) -> Columns:
    """Choose the column of each field: the first of its known names that any row has.

    Args:
        task: its fields and the names of columns that they are known by.
        rows: all rows of the data set.
        mapping: columns named by the user or the data set: field, "references", "id" or "language" to column.
        ignore_unknown_columns: ignore mappings to columns that the data lacks; they were meant for other data.
        require_inputs: refuse data without a column for a required field; scoring predictions needs none.

    Raises:
        DataError: a mapping names an unknown field or column, or a required field has no column.
    """
    present, objects = _present(rows)
    if ignore_unknown_columns:
        mapping = {name: column for name, column in mapping.items() if column in present}
    targets = (*task.fields, "references", "id", "language")
    for name, column in mapping.items():
        if name not in targets:
            raise DataError(
                f'{_origin(rows)}: task "{task.name}" has no field "{name}" to map column "{column}" to;'
                f" it has {', '.join(targets)}"
            )
        if column not in present:
            raise DataError(f'{_origin(rows)}: no column "{column}"; {_columns_hint(present, column)}')
    fields = {}
    for name, field in task.fields.items():
        known = (mapping[name],) if name in mapping else (name, *field.columns)
        match = _first(known, present, objects)
        if match is not None:
            fields[name] = match
        elif field.required and require_inputs:
            raise DataError(
                f'{rows[0].where}: no field "{name}" (looked for {", ".join(known)}); {_columns_hint(present, name)}'
                f" Name its column with {option('columns', {name: 'COLUMN'})}"
            )
    references = reference = None
    if "references" in mapping:
        reference = mapping["references"]
    else:
        references = REFERENCES_COLUMN if REFERENCES_COLUMN in present else None
        taken = {*fields.values(), REFERENCES_COLUMN}
        reference = _first((*task.references, *REFERENCE_COLUMNS), present - taken, objects - taken)
    return Columns(
        fields=fields,
        references=references,
        reference=reference,
        id=mapping.get("id") or _first(("id",), present, objects),
        language=mapping.get("language") or _first(LANGUAGE_COLUMNS, present, objects),
    )


def lookup(values: object, column: str) -> object:
    """Return the value in a column, or None; "a.b" reaches into objects and lists of objects."""
    if isinstance(values, Mapping) and column in values:
        return values[column]
    head, dot, rest = column.partition(".")
    if not dot or not isinstance(values, Mapping) or head not in values:
        return None
    inner = values[head]
    if isinstance(inner, list):
        if not all(isinstance(item, Mapping) for item in inner):
            return None  # a list of texts, say; an empty list would mean objects without the key
        nested = [lookup(item, rest) for item in inner]
        return [item for item in nested if item is not None]
    return lookup(inner, rest)


def _first(known: Sequence[str], present: set[str], objects: set[str]) -> str | None:
    """Return the first known name; an object column only if no other matches, for the error message about it."""
    return next((name for names in (present, objects) for name in known if name in names), None)


def _present(rows: Sequence[Row]) -> tuple[set[str], set[str]]:
    """Return the columns with text or lists, nested names joined by dots, and the columns with objects."""
    names: set[str] = set()
    objects: set[str] = set()
    for row in rows:
        stack: list[tuple[str, object]] = [(name, value) for name, value in row.values.items()]
        while stack:
            name, value = stack.pop()
            if value is None:
                continue
            (objects if isinstance(value, Mapping) else names).add(name)
            inner = value[0] if isinstance(value, list) and value else value
            if isinstance(inner, Mapping):
                stack.extend((f"{name}.{key}", item) for key, item in inner.items())
    return names, objects


def _columns_hint(present: set[str], wanted: str) -> str:
    if len(present) == 1 and ";" in (only := next(iter(present))):
        return f'the only column is "{only}"; separate cells by commas, or name the file .tsv if it has tabs.'
    near = difflib.get_close_matches(wanted, sorted(present), n=1)
    return f"the columns are {', '.join(sorted(present))}." + (f' Did you mean "{near[0]}"?' if near else "")


def _origin(rows: Sequence[Row]) -> str:
    return rows[0].where.rpartition(",")[0] or rows[0].where
