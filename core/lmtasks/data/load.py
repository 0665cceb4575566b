"""Loads the examples of one split of a data set and checks them, before any model is loaded."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lmtasks.data.columns import SPLIT_COLUMN, Columns, choose_columns, lookup
from lmtasks.data.examples import make_examples, warn_of_damaged_columns, warn_of_missing_ids
from lmtasks.data.files import file_sha256, has_columns, read_rows
from lmtasks.data.functions import read_function
from lmtasks.data.hub import HUB_PREFIX, hub_rows, hub_splits, parse_hub
from lmtasks.data.list_literals import JSON_OBJECT, refuse_literals, warn_of_lists
from lmtasks.data.request import DataRequest, Dataset, NoSplitError
from lmtasks.data.rows import Row
from lmtasks.data.values import as_text, kind_of
from lmtasks.errors import DataError, option, unknown_name
from lmtasks.paths import user_path
from lmtasks.task import DataFile, DataSource, HubDataset, Task

log = logging.getLogger("lmtasks.data")


def load_dataset(task: Task, request: DataRequest) -> Dataset:
    """Read and check the examples of a request.

    Raises:
        DataError: the data does not exist, or is not what the task needs; names file, line and field.
        UnknownNameError: the task has no data set of that name.
    """
    name, source = _resolve_source(task, request.data)
    split: str | None
    if isinstance(source, HubDataset):
        split = _choose_split(name, hub_splits(source), request)
        rows = hub_rows(source, split)
        sha256 = None
    elif isinstance(source, DataFile):
        path = user_path(source.path, "data file")
        split, rows = _split_rows(name, read_rows(path), request)
        sha256 = file_sha256(path)
    else:
        split, examples = read_function(task, name, source, request)
        return Dataset(name=name, split=split, examples=examples, file_sha256=None)
    taken = list(itertools.islice(rows, request.limit))
    if not taken:
        raise DataError(f"{name}: no data rows; expected at least one example")
    columns = {**source.columns, **request.columns}
    chosen = choose_columns(
        task,
        taken,
        columns,
        ignore_unknown_columns=request.ignore_unknown_columns,
        require_inputs=request.require_inputs,
    )
    for column in chosen.answer_columns:
        refuse_literals(taken, column)
        warn_of_lists(taken, column)
    for column in chosen.fields.values() if request.require_inputs else ():
        refuse_literals(taken, column, allowed=JSON_OBJECT)
    warn_of_damaged_columns(taken, chosen)
    warn_of_missing_ids(taken, chosen)
    if isinstance(source, HubDataset) and request.require_inputs:
        taken = _drop_incomplete_rows(task, name, taken, chosen)
    examples = tuple(
        replace(example, language=example.language or source.language)
        for example in make_examples(
            task, taken, chosen, language=request.language, require_inputs=request.require_inputs
        )
    )
    return Dataset(name=name, split=split, examples=examples, file_sha256=sha256, columns=request.columns)


def _drop_incomplete_rows(task: Task, name: str, rows: list[Row], columns: Columns) -> list[Row]:
    """Drop rows of a hub data set that lack an input: unlike a file of one's own, it cannot be corrected."""
    needed = {field: column for field, column in columns.fields.items() if task.fields[field].required}
    lacking = [
        (row, field)
        for row in rows
        for field, column in needed.items()
        if (value := lookup(row.values, column)) is None or as_text(value) == ""
    ]
    if not lacking:
        return rows
    left_out = {row.number for row, _ in lacking}
    if len(left_out) == len(rows):
        raise DataError(f'{lacking[0][0].where}: field "{lacking[0][1]}" is missing, here and in every other row')
    log.warning(
        '%s: %d of %d rows skipped, which have no "%s" (first: %s)',
        name,
        len(left_out),
        len(rows),
        lacking[0][1],
        lacking[0][0].where,
    )
    return [row for row in rows if row.number not in left_out]


def _resolve_source(task: Task, data: str | Path | None) -> tuple[str, DataSource]:
    if data is None:
        return next(iter(task.datasets.items()))
    data = str(data)
    if data.startswith(HUB_PREFIX):
        return data, parse_hub(data)
    if data in task.datasets:
        return data, task.datasets[data]
    path = user_path(data, "data file")
    if path.exists() or has_columns(path) or len(path.parts) > 1:
        return str(path), DataFile(path=path)
    raise unknown_name(f'data set of task "{task.name}" (or file)', data, task.datasets)


def _choose_split(name: str, splits: Sequence[str], request: DataRequest) -> str:
    wanted = request.split
    if wanted is None:
        wanted = next((split for split in request.prefer if split in splits), None)
        if wanted is None:
            raise NoSplitError(f"{name}: choose one of its splits with {option('split')}: {', '.join(splits)}")
    elif wanted not in splits:
        raise no_split(name, wanted, splits)
    return wanted


def no_split(name: str, wanted: str, splits: Sequence[str]) -> NoSplitError:
    """Return the error for an unknown split, with the splits that the data set has."""
    has = f"; it has {', '.join(splits)}" if splits else f': the file has no column "{SPLIT_COLUMN}"'
    return NoSplitError(f'{name}: no split "{wanted}"{has}')


def _split_rows(name: str, rows: Iterator[Row], request: DataRequest) -> tuple[str | None, Iterator[Row]]:
    """Return the split to use and its rows, by the column "split".

    A file without that column is one split, read no further than the limit.
    """
    head = list(itertools.islice(rows, request.limit))
    if head and not has_splits(head):
        if request.split is not None:
            raise no_split(name, request.split, ())
        return None, iter(head)
    all_rows = [*head, *rows]
    texts = [split_of(row) for row in all_rows]
    split = _choose_split(name, list(dict.fromkeys(texts)), request) if texts else None
    return split, (row for row, text in zip(all_rows, texts, strict=True) if text == split)


def has_splits(rows: Sequence[Row]) -> bool:
    """Return whether a column divides rows into splits."""
    return any(row.values.get(SPLIT_COLUMN) is not None for row in rows)


def split_of(row: Row) -> str:
    """Return the split that a row belongs to.

    Raises:
        DataError: the column holds no text in this row.
    """
    value = row.values.get(SPLIT_COLUMN)
    text = as_text(value)
    if not text:
        if value is None or text == "":
            raise DataError(f'{row.where}: no value in column "{SPLIT_COLUMN}", though other rows have one')
        raise DataError(f'{row.where}: column "{SPLIT_COLUMN}" holds {kind_of(value)}, expected text')
    return text
