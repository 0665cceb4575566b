"""Which column of a data set is which field of a task, and from rows to examples."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lmtasks.characters import as_utf8
from lmtasks.data.rows import Row
from lmtasks.errors import DataError
from lmtasks.languages import primary
from lmtasks.task import Example, Task

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
            f" Name it with --map {meaning}=COLUMN"
        )
    return found


def choose_columns(
    task: Task, rows: Sequence[Row], mapping: Mapping[str, str], *, lenient: bool = False, need_inputs: bool = True
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
    if lenient:
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
        elif field.required and need_inputs:
            raise DataError(
                f'{rows[0].where}: no field "{name}" (looked for {", ".join(known)}); {_columns_hint(present, name)}'
                f" Name its column with --map {name}=COLUMN"
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
        id=mapping.get("id") or ("id" if "id" in present else None),
        language=mapping.get("language") or next((column for column in LANGUAGES if column in present), None),
    )


def make_examples(
    task: Task, rows: Sequence[Row], columns: Columns, *, language: str | None, need_inputs: bool = True
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
    answered = columns.listed is not None or columns.single is not None
    for row in rows:
        for column, expected in task.expects.items():
            found = lookup(row.values, column)
            if isinstance(found, str) and primary(found) != primary(expected):
                raise DataError(
                    f'{row.where}: {column} is "{found}", but task "{task.name}" expects "{expected}";'
                    " choose the task for this data"
                )
        inputs = {}
        for name, column in columns.fields.items():
            text = _text(row, column)
            if text:
                inputs[name] = text
            elif task.fields[name].required and need_inputs:
                state = "is empty" if text == "" else "is missing"
                raise DataError(f'{row.where}: field "{name}" {state} (column "{column}"), expected text')
        references, target = _references(task, row, columns) if answered else ((), None)
        id = _text(row, columns.id) if columns.id else None
        id = id or str(row.number)
        if id in seen:
            raise DataError(f'{row.where}: id "{id}" stands already at {seen[id]}; ids must be unique')
        seen[id] = row.where
        yield Example(
            id=id,
            inputs=inputs,
            references=references,
            target=target,
            language=language or (_text(row, columns.language) if columns.language else None) or None,
            meta=_meta(row, columns),
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
        found = [lookup(item, rest) for item in inner]
        return [item for item in found if item is not None] if inner else []
    return lookup(inner, rest)


def _references(task: Task, row: Row, columns: Columns) -> tuple[tuple[str, ...], str | None]:
    single = lookup(row.values, columns.single) if columns.single else None
    listed = lookup(row.values, columns.listed) if columns.listed else None
    column, value = (columns.listed, listed) if listed is not None else (columns.single, single)
    if value is None:
        raise DataError(
            f"{row.where}: no right answer (column {columns.single or columns.listed}), though other rows have one"
        )
    items = value if isinstance(value, list) else [value]
    for item in items:
        if as_text(item) is None:
            held = f"{_kind(item)} in its list" if isinstance(value, list) else _kind(item)
            raise DataError(f'{row.where}: column "{column}" holds {held}, expected text or a list of texts')
    references = tuple(as_text(item) or "" for item in items)
    if not any(references):
        if task.no_answer is None:
            raise DataError(
                f'{row.where}: column "{column}" holds no right answer, and task "{task.name}" has no way to say'
                " that there is none"
            )
        return ("",), task.no_answer
    target = as_text(single) if isinstance(single, str) else None
    return references, target or None


def _meta(row: Row, columns: Columns) -> dict[str, str]:
    rest = ((name, as_text(value)) for name, value in row.values.items() if name not in columns.used)
    return {name: text for name, text in rest if text}


def _text(row: Row, column: str) -> str | None:
    value = lookup(row.values, column)
    if value is None:
        return None
    text = as_text(value)
    if text is None:
        raise DataError(
            f'{row.where}: column "{column}" holds {_kind(value)}, expected text; name another with --map FIELD=COLUMN'
        )
    return text


def as_text(value: object) -> str | None:
    """Return text for text and numbers, without space around it, None for what is neither."""
    if isinstance(value, str):
        return as_utf8(value.strip())
    if isinstance(value, (bool, int, float)):
        return str(value)
    return None


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return f"an object (of {', '.join(map(str, value))})"
    return {"list": "a list", "NoneType": "nothing"}.get(type(value).__name__, f"a {type(value).__name__}")


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
