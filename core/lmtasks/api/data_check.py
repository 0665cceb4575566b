"""A data file checked for a task: everything that `run`, `score` and `train` would say about it, all at once."""

from __future__ import annotations

import logging
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lmtasks.api.running import find_task
from lmtasks.data import DataRequest, identity, load_dataset
from lmtasks.data.columns import SPLIT, Columns, choose_columns
from lmtasks.data.examples import make_example, warn_of_damage
from lmtasks.data.files import read_rows
from lmtasks.data.printed import JSON_OBJECT, printed_column
from lmtasks.data.remarks import SAID, Level, Remark, odd_kinds
from lmtasks.data.rows import Row
from lmtasks.data.values import as_text
from lmtasks.errors import DataError, LmtasksError
from lmtasks.metrics import check_references, find_metrics
from lmtasks.metrics.language import doubt, group_by_language
from lmtasks.paths import user_path
from lmtasks.plugins import Registry
from lmtasks.runs.options import check_language
from lmtasks.runs.samples import unanswered
from lmtasks.task import Example, Task
from lmtasks.training import TrainOptions, plan_training

SHOWN = 20
"""Errors of single rows that are listed; more of them are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSummary:
    """One input of a task, or its references, in a data file."""

    column: str | None
    """None: the file has none for it."""
    filled: int
    """Rows that hold text there."""
    shortest: int = 0
    """Of the texts, in characters, like the next two."""
    median: int = 0
    longest: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCheck:
    """What a data file holds, and what is wrong with it."""

    data: str
    task: str
    rows: int
    examples: int
    """Rows that are good examples of the task."""
    splits: Mapping[str, int]
    """Rows by the column "split", in the order of the file; empty: it has none."""
    fields: Mapping[str, FieldSummary]
    """By the task's field, and "references"."""
    other_columns: tuple[str, ...]
    """Columns that the task does not use; they are kept in the samples."""
    languages: Mapping[str, int]
    """Examples by the language of their references: as stated, or as "en (script)" where it was read from the text."""
    references: Mapping[int, int]
    """Examples by their number of references."""
    no_answer: int
    """Examples for which giving no answer is right."""
    remarks: tuple[Remark, ...]
    """Errors first."""

    @property
    def ok(self) -> bool:
        """Whether nothing would be refused."""
        return not any(remark.level == "error" for remark in self.remarks)


def check_data(
    data: str | Path,
    task: str | Task,
    *,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    language: str | None = None,
) -> DataCheck:
    """Check a data file for a task; no model is loaded.

    Args:
        data: a JSONL, CSV, TSV or Parquet file.
        task: its name, or a Task.
        split: checks the rows of one split alone.
        columns: field to column, as for `run`.
        language: of the references, as for `run`.

    Raises:
        DataError: there is no such file, or it cannot be read at all.
        UnknownNameError: there is no such task.
        UsageError: the language is no language tag.
    """
    check_language(language)
    registry = Registry()
    found, _ = find_task(registry, task)
    path = user_path(data, "data file")
    collected = _Remarks()
    with collected.of_log("lmtasks.data"):
        rows: list[Row] = []
        lines = read_rows(path, on_error=lambda error: collected.error("unreadable-row", error))
        with collected.of_errors("unreadable-file"):
            rows.extend(lines)
        splits = Counter(map(_split_of, rows))
        if split is not None:
            rows = [row for row in rows if _split_of(row) == split]
        chosen = _choose(found, rows, columns or {}, collected, str(path), split)
        examples = _examples(found, rows, chosen, language, collected) if chosen else {}
        for check in (_repeated, _texts, _answers):
            check(found, rows, examples, collected)
        if not collected.errors:
            _commands(found, DataRequest(data=path, split=split, columns=columns or {}, language=language), collected)
    languages = _languages(found, list(examples.values()), collected)
    with collected.of_errors("metric"):
        check_references(find_metrics(found.metrics, registry.metric), examples.values())
    return DataCheck(
        data=str(path),
        task=found.name,
        rows=len(rows),
        examples=len(examples),
        splits=dict(splits) if set(splits) != {""} else {},
        fields=_fields(found, chosen, list(examples.values())) if chosen else {},
        other_columns=_others(rows, chosen) if chosen else (),
        languages=languages,
        references=dict(sorted(Counter(len(example.references) for example in examples.values()).items())),
        no_answer=sum(example.references == ("",) for example in examples.values()),
        remarks=collected.sorted(),
    )


@dataclass(slots=True)
class _Remarks:
    """Remarks that are collected while a file is read."""

    all: list[Remark] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, level: Level, kind: str, message: str, count: int = 1) -> None:
        self.all.append(Remark(level=level, kind=kind, message=message, count=count))

    def error(self, kind: str, error: LmtasksError) -> None:
        """Add an error of a row; beyond `SHOWN` of a kind they are counted alone."""
        self.errors[kind] += 1
        if self.errors[kind] <= SHOWN:
            self.add("error", kind, str(error))

    @contextmanager
    def of_errors(self, kind: str) -> Iterator[None]:
        """Add the error that ends what is within."""
        try:
            yield
        except LmtasksError as error:
            self.error(kind, error)

    @contextmanager
    def of_log(self, name: str) -> Iterator[None]:
        """Add what is logged within, instead of logging it."""
        logger = logging.getLogger(name)
        handler, propagate = _Handler(self.add), logger.propagate
        logger.addHandler(handler)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.propagate = propagate

    def sorted(self) -> tuple[Remark, ...]:
        for kind, count in self.errors.items():
            if count > SHOWN:
                self.add("error", kind, f"... and {count - SHOWN} more such errors", count - SHOWN)
        order = ("error", "warning", "note")
        return tuple(sorted(self.all, key=lambda remark: order.index(remark.level)))


class _Handler(logging.Handler):
    """Hands warnings to a function."""

    def __init__(self, add: Callable[[Level, str, str], None]) -> None:
        super().__init__(logging.WARNING)
        self._add = add

    def emit(self, record: logging.LogRecord) -> None:
        self._add("warning", "reading", record.getMessage())


def _choose(
    task: Task, rows: Sequence[Row], mapping: Mapping[str, str], remarks: _Remarks, name: str, split: str | None
) -> Columns | None:
    if not rows:
        if not remarks.errors:
            inside = f' in split "{split}"' if split else ""
            remarks.error("no-rows", DataError(f"{name}: no data rows{inside}; expected at least one example"))
        return None
    try:
        chosen = choose_columns(task, rows, mapping)
    except DataError as error:
        remarks.error("no-column", error)
        return None
    for column in chosen.answers:
        if (problem := printed_column(rows, column)) is not None:
            remarks.error("printed-list", DataError(problem))
    for column in chosen.fields.values():
        if (problem := printed_column(rows, column, allowed=JSON_OBJECT)) is not None:
            remarks.error("printed-list", DataError(problem))
    warn_of_damage(rows, chosen)
    return chosen


def _examples(
    task: Task, rows: Sequence[Row], columns: Columns, language: str | None, remarks: _Remarks
) -> dict[str, Example]:
    """Return the good examples by the place they stand at."""
    examples: dict[str, Example] = {}
    ids: dict[tuple[str, str], str] = {}
    divided = any(_split_of(row) for row in rows)
    for row in rows:
        if divided and not _split_of(row):
            message = f'{row.where}: no value in column "{SPLIT}", though other rows have one'
            remarks.error("no-split", DataError(message))
        try:
            example = make_example(task, row, columns, language=language)
        except DataError as error:
            remarks.error("bad-example", error)
            continue
        first = ids.setdefault((_split_of(row), example.id), row.where)
        if first != row.where:
            message = f'{row.where}: id "{example.id}" stands already at {first}; ids must be unique within a split'
            remarks.error("repeated-id", DataError(message))
        examples[row.where] = example
    return examples


def _split_of(row: Row) -> str:
    return as_text(row.values.get(SPLIT)) or ""


def _commands(task: Task, request: DataRequest, remarks: _Remarks) -> None:
    """Read the data as `run` and as `train` do, for what only shows then."""
    with remarks.of_errors("run"):
        load_dataset(task, request)
    options = TrainOptions(data=request.data, split=request.split, columns=request.columns, language=request.language)
    try:
        leaks = plan_training(task, None, options).leaks
    except LmtasksError as error:
        remarks.add("note", "train", f"`train` would refuse it as the only data: {error}")
    else:
        if leaks:
            remarks.add("note", "train", f"`train` would leave out {_rows(leaks)} that it scores too", leaks)


def _repeated(task: Task, rows: Sequence[Row], examples: Mapping[str, Example], remarks: _Remarks) -> None:
    """Find examples that ask the same, within a split and across splits."""
    splits = {row.where: _split_of(row) for row in rows}
    groups: dict[object, list[str]] = {}
    for where, example in examples.items():
        groups.setdefault(identity(example), []).append(where)
    groups = {key: places for key, places in groups.items() if len(places) > 1}
    across = [places for places in groups.values() if len({splits[where] for where in places}) > 1]
    differing = [places for places in groups.values() if len({examples[where].references for where in places}) > 1]
    if groups:
        first = next(iter(groups.values()))
        again = sum(len(places) - 1 for places in groups.values())
        remarks.add(
            "warning", "repeated-example", f"{_rows(again)} asking the same as another (first: {_both(first)})", again
        )
    if differing:
        message = f"{_rows(len(differing))} standing there again with other answers (first: {_both(differing[0])})"
        remarks.add("warning", "different-answers", message, len(differing))
    if across:
        message = f"{_rows(len(across))} standing in more than one split (first: {_both(across[0])})"
        remarks.add("warning", "split-overlap", message, len(across))


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _both(places: Sequence[str]) -> str:
    return f"{places[0]} and {places[1].rpartition(', ')[2]}"


def _texts(task: Task, rows: Sequence[Row], examples: Mapping[str, Example], remarks: _Remarks) -> None:
    """Find odd characters, and words that stand for nothing."""
    places: dict[str, list[str]] = {}
    for where, example in examples.items():
        for kind in odd_kinds([*example.inputs.values(), *example.references]):
            places.setdefault(kind, []).append(where)
    for kind, found in sorted(places.items()):
        level: Level = "note" if kind in ("control-token", "not-nfc", "html") else "warning"
        remarks.add(level, kind, f"{_rows(len(found))} with {SAID[kind]} (first: {found[0]})", len(found))


def _answers(task: Task, rows: Sequence[Row], examples: Mapping[str, Example], remarks: _Remarks) -> None:
    """Find references that are missing or a copy of an input, and inputs that are all the same."""
    without = [where for where, example in examples.items() if not example.references]
    if without:
        message = f"{_rows(len(without))} of {len(examples)} without references: they get no score and teach nothing"
        remarks.add("warning", "no-references", message, len(without))
    copies = [
        where
        for where, example in examples.items()
        if any(text and text in example.inputs.values() for text in example.references)
    ]
    if copies:
        message = f"{_rows(len(copies))} with a reference that is a copy of an input (first: {copies[0]})"
        remarks.add("warning", "copied-reference", message, len(copies))
    for name, field_ in task.fields.items():
        texts = [example.inputs.get(name) for example in examples.values()]
        if len(texts) > 1 and len(set(texts)) == 1 and texts[0] and field_.required:
            remarks.add("warning", "constant-input", f'field "{name}" holds the same text in every row')


def _languages(task: Task, examples: Sequence[Example], remarks: _Remarks) -> dict[str, int]:
    samples = [unanswered(task, index, example) for index, example in enumerate(examples) if example.references]
    groups = group_by_language(samples)
    if (message := doubt(groups)) is not None:
        remarks.add("warning", "language", message)
    counted = {
        f"{language or 'unknown'}{'' if stated else ' (script)'}": len(members)
        for (language, stated), members in groups.items()
    }
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _fields(task: Task, columns: Columns, examples: Sequence[Example]) -> dict[str, FieldSummary]:
    summaries = {
        name: _summary(columns.fields.get(name), [example.inputs.get(name, "") for example in examples])
        for name in task.fields
    }
    answers = [text for example in examples for text in example.references]
    answered = _summary(" or ".join(columns.answers) or None, answers)
    filled = sum(any(example.references) for example in examples)
    summaries["references"] = FieldSummary(
        column=answered.column,
        filled=filled,
        shortest=answered.shortest,
        median=answered.median,
        longest=answered.longest,
    )
    return summaries


def _summary(column: str | None, texts: Sequence[str]) -> FieldSummary:
    lengths = [len(text) for text in texts if text]
    if not lengths:
        return FieldSummary(column=column, filled=0)
    return FieldSummary(
        column=column,
        filled=len(lengths),
        shortest=min(lengths),
        median=round(statistics.median(lengths)),
        longest=max(lengths),
    )


def _others(rows: Sequence[Row], columns: Columns) -> tuple[str, ...]:
    names = dict.fromkeys(name for row in rows for name in row.values)
    return tuple(name for name in names if name not in columns.used)
