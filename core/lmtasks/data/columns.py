"""Which column of a data set is which field of a task."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmtasks.data.rows import Row
from lmtasks.errors import DataError, option
from lmtasks.task import Task

REFERENCES = ("references", "reference", "target")
"""Columns that right answers are known by whatever the task."""
LISTED = "references"
"""The column whose list of right answers wins over a column with a single one, in the rows that have it."""
SPLIT = "split"
LANGUAGES = ("language", "lang")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns chosen for one data set, once for all its rows."""

    fields: Mapping[str, str]
    listed: str | None
    """The column with all right answers."""
    single: str | None
    """The column with the one that training learns to write."""
    id: str | None
    language: str | None

    @property
    def answers(self) -> list[str]:
        """The columns with right answers."""
        return [column for column in (self.listed, self.single) if column]

    @property
    def used(self) -> set[str]:
        """The top-level columns that have a meaning here; what else a row holds is its meta."""
        chosen = [*self.fields.values(), self.listed, self.single, self.id, self.language, SPLIT]
        return {name for column in chosen if column for name in (column, column.partition(".")[0])}


def choose_column(rows: Sequence[Row], meaning: str, known: Sequence[str]) -> str:
    """Return the first known column that any row has.

    Raises:
        DataError: there is none; names the columns that there are.
    """
    present, objects = _present(rows)
    found = _first(known, present, objects)
    if found is None:
        raise DataError(
            f'{_origin(rows)}: no column "{meaning}" (looked for {", ".join(known)}); {_columns_hint(present, meaning)}'
            f" Name it with {option('columns', {meaning: 'COLUMN'})}"
        )
    return found


def choose_columns(
    task: Task,
    rows: Sequence[Row],
    mapping: Mapping[str, str],
    *,
    ignore_unknown_columns: bool = False,
    require_inputs: bool = True,
) -> Columns:
    """Decide which column is which field, by the first name that any row has.

    Args:
        task: says by which names its fields and references are known.
        rows: all rows of the data set.
        mapping: columns named by the user or the data set: field, "references", "id" or "language" to column.
        lenient: whether a mapping to a column that is not there is left out; it was meant for other data.
        need_inputs: whether required fields must have a column; outputs made elsewhere are scored without.

    Raises:
        DataError: a mapping names no field or no column, or a required field has no column.
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
        found = _first(known, present, objects)
        if found is not None:
            fields[name] = found
        elif field.required and require_inputs:
            raise DataError(
                f'{rows[0].where}: no field "{name}" (looked for {", ".join(known)}); {_columns_hint(present, name)}'
                f" Name its column with {option('columns', {name: 'COLUMN'})}"
            )
    listed = single = None
    if "references" in mapping:
        single = mapping["references"]
    else:
        listed = LISTED if LISTED in present else None
        taken = {*fields.values(), LISTED}
        single = _first((*task.references, *REFERENCES), present - taken, objects - taken)
    return Columns(
        fields=fields,
        listed=listed,
        single=single,
        id=mapping.get("id") or _first(("id",), present, objects),
        language=mapping.get("language") or _first(LANGUAGES, present, objects),
    )


def lookup(values: object, column: str) -> object:
    """Return what stands in a column, or None; "a.b" reaches into objects and lists of objects."""
    if isinstance(values, Mapping) and column in values:
        return values[column]
    head, dot, rest = column.partition(".")
    if not dot or not isinstance(values, Mapping) or head not in values:
        return None
    inner = values[head]
    if isinstance(inner, list):
        if not all(isinstance(item, Mapping) for item in inner):
            return None  # a list of something else, such as the texts themselves, is no empty list of objects
        found = [lookup(item, rest) for item in inner]
        return [item for item in found if item is not None]
    return lookup(inner, rest)


def _first(known: Sequence[str], present: set[str], objects: set[str]) -> str | None:
    """Return the first known name; an object only where no name stands for text, and then to be complained of."""
    return next((name for names in (present, objects) for name in known if name in names), None)


def _present(rows: Sequence[Row]) -> tuple[set[str], set[str]]:
    """Return the names of columns that hold text or lists, nested ones joined by dots, and of those with objects."""
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
        return f'the one column is "{only}"; separate cells by commas, or name the file .tsv if it has tabs.'
    near = difflib.get_close_matches(wanted, sorted(present), n=1)
    return f"the columns are {', '.join(sorted(present))}." + (f' Did you mean "{near[0]}"?' if near else "")


def _origin(rows: Sequence[Row]) -> str:
    return rows[0].where.rpartition(",")[0] or rows[0].where
