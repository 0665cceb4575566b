"""Checks a data file for a task: reports at once everything that `run`, `score` and `train` would."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lmtasks.data import DataRequest, load_dataset
from lmtasks.data.columns import Columns, choose_columns
from lmtasks.data.diagnostics import COMMANDS, Diagnostic, Diagnostics
from lmtasks.data.examples import make_example, warn_of_damaged_columns, warn_of_missing_ids
from lmtasks.data.files import read_rows
from lmtasks.data.list_literals import JSON_OBJECT, refuse_literals, warn_of_lists
from lmtasks.data.load import has_splits, no_split, split_of
from lmtasks.data.rows import Row
from lmtasks.data.text_checks import no_references, repeated_examples, rows_text, suspicious_answers, suspicious_texts
from lmtasks.errors import DataError, LmtasksError
from lmtasks.metrics import check_references, find_metrics
from lmtasks.metrics.language import group_by_language, language_warning
from lmtasks.options import TrainOptions
from lmtasks.options.base import check_language
from lmtasks.paths import user_path
from lmtasks.plugins import Registry, find_task
from lmtasks.runs.samples import new_sample
from lmtasks.task import Example, Task
from lmtasks.training import plan_training

NEED_INPUTS = ("run", "train")
"""Commands that need the inputs of a task; `score` needs only references."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSummary:
    """One input of a task, or its references, in a data file."""

    column: str | None
    """Column of the field; None: the file has none."""
    filled: int
    """Number of rows with text in it."""
    shortest: int = 0
    """Length of the shortest text, in characters."""
    median: int = 0
    longest: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCheck:
    """Content of a data file and its diagnostics."""

    data: str
    task: str
    rows: int
    examples: int
    """Number of rows that are valid examples; where input columns are missing, valid for `score`."""
    splits: Mapping[str, int]
    """Number of rows by split, in the order of the file; empty: it has no splits."""
    fields: Mapping[str, FieldSummary]
    """Summaries by the task's field, and of "references"."""
    other_columns: tuple[str, ...]
    """Columns that the task does not use; samples keep them."""
    languages: Mapping[str, int]
    """Number of examples by language of the references; "en (script)": detected from the text."""
    references: Mapping[int, int]
    """Number of examples by number of references."""
    no_answer: int
    """Number of examples for which giving no answer is right."""
    diagnostics: tuple[Diagnostic, ...]
    """All diagnostics, errors first."""

    @property
    def ok(self) -> bool:
        """Whether no command would refuse the file."""
        return not self.refused_by

    @property
    def refused_by(self) -> tuple[str, ...]:
        """Commands that would refuse the file: some of "run", "score", "train"."""
        refusing = {command for diagnostic in self.diagnostics for command in diagnostic.refused_by}
        return tuple(command for command in COMMANDS if command in refusing)


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
        task: name of the task, or a Task.
        split: check only the rows of this split.
        columns: field to column, as for `run`.
        language: language of the references, as for `run`.

    Raises:
        DataError: the file does not exist or cannot be read at all.
        UnknownNameError: the task does not exist.
        UsageError: the language is not a language tag.
    """
    check_language(language)
    registry = Registry()
    checked_task, _ = find_task(registry, task)
    path = user_path(data, "data file")
    diagnostics = Diagnostics()
    with diagnostics.collect_log("lmtasks.data"):
        rows: list[Row] = []
        lines = read_rows(path, on_error=lambda error: diagnostics.error("unreadable-row", error))
        with diagnostics.collect_error("unreadable-file"):
            rows.extend(lines)
        all_splits = _split_rows(path, rows, diagnostics)
        splits = [each for each in all_splits if split in (None, each.name)]
        if all_splits and not splits:
            diagnostics.error(
                "no-split", no_split(str(path), str(split), [each.name for each in all_splits if each.name])
            )
        for each in splits:
            _choose_columns(checked_task, each, columns or {}, diagnostics)
            _make_examples(checked_task, each, language, diagnostics)
        examples = {where: example for each in splits for where, example in each.examples.items()}
        diagnostics.all += _find_suspicious(checked_task, splits, examples)
        if not diagnostics.errors:
            _dry_run(
                checked_task, DataRequest(data=path, split=split, columns=columns or {}, language=language), diagnostics
            )
    languages = _languages(checked_task, list(examples.values()), diagnostics)
    with diagnostics.collect_error("metric", ("run", "score")):
        check_references(find_metrics(checked_task.metrics, registry.metric), examples.values())
    return DataCheck(
        data=str(path),
        task=checked_task.name,
        rows=len(rows) if split is None else sum(len(each.rows) for each in splits),
        examples=len(examples),
        splits={each.name: len(each.rows) for each in all_splits if each.name is not None},
        fields=_fields(checked_task, splits, list(examples.values())),
        other_columns=_unused_columns(splits),
        languages=languages,
        references=dict(sorted(Counter(len(example.references) for example in examples.values()).items())),
        no_answer=sum(example.references == ("",) for example in examples.values()),
        diagnostics=diagnostics.sorted(),
    )


@dataclass(slots=True)
class _Split:
    """The rows of one split, or of a file without splits, with their columns and examples."""

    name: str | None
    rows: Sequence[Row]
    columns: Columns | None = None
    """None: no columns match, or there are no rows."""
    with_inputs: bool = True
    """Whether there are columns for the inputs; otherwise only for references."""
    examples: dict[str, Example] = field(default_factory=dict)
    """Valid examples by file and line."""


def _split_rows(path: Path, rows: Sequence[Row], diagnostics: Diagnostics) -> list[_Split]:
    """Group rows by split as `run` does."""
    if not rows:
        if not diagnostics.errors:
            diagnostics.error("no-rows", DataError(f"{path}: no data rows; expected at least one example"))
        return []
    groups: dict[str | None, list[Row]] = {}
    if has_splits(rows):
        for row in rows:
            with diagnostics.collect_error("no-split"):
                groups.setdefault(split_of(row), []).append(row)
    else:
        groups[None] = list(rows)
    return [_Split(name, group) for name, group in groups.items()]


def _choose_columns(task: Task, split: _Split, mapping: Mapping[str, str], diagnostics: Diagnostics) -> None:
    """Choose the columns of a split and check them as a whole."""
    try:
        split.columns = choose_columns(task, split.rows, mapping)
    except DataError as error:
        split.columns, split.with_inputs = _columns_for_score(task, split.rows, mapping), False
        diagnostics.error("no-column", error, NEED_INPUTS if split.columns else COMMANDS)
    if split.columns is None:
        return
    for column in split.columns.answer_columns:
        with diagnostics.collect_error("printed-list"):
            refuse_literals(split.rows, column)
            warn_of_lists(split.rows, column)
    for column in split.columns.fields.values() if split.with_inputs else ():
        with diagnostics.collect_error("printed-list", NEED_INPUTS):
            refuse_literals(split.rows, column, allowed=JSON_OBJECT)
    warn_of_damaged_columns(split.rows, split.columns)
    warn_of_missing_ids(split.rows, split.columns)


def _columns_for_score(task: Task, rows: Sequence[Row], mapping: Mapping[str, str]) -> Columns | None:
    """Return the columns that `score` would choose, without inputs; None: there are none with references."""
    try:
        chosen = choose_columns(task, rows, mapping, require_inputs=False)
    except DataError:
        return None
    return chosen if chosen.answer_columns else None


def _make_examples(task: Task, split: _Split, language: str | None, diagnostics: Diagnostics) -> None:
    """Make the valid examples of a split."""
    if split.columns is None:
        return
    first: dict[str, str] = {}
    for row in split.rows:
        try:
            example = make_example(task, row, split.columns, language=language, require_inputs=False)
        except DataError as error:
            diagnostics.error("bad-example", error)
            continue
        if example.id in first:
            message = (
                f'{row.where}: duplicate id "{example.id}", first seen at {first[example.id]}; ids must be unique'
                " within a split"
            )
            diagnostics.error("repeated-id", DataError(message))
        first.setdefault(example.id, row.where)
        with diagnostics.collect_error("bad-example", NEED_INPUTS):
            if split.with_inputs:
                make_example(task, row, split.columns, language=language)
            split.examples[row.where] = example


def _dry_run(task: Task, request: DataRequest, diagnostics: Diagnostics) -> None:
    """Load the data as `run` and `train` do, for errors that only appear then."""
    with diagnostics.collect_error("run", ("run", "score")):
        load_dataset(task, request)
    options = TrainOptions(data=request.data, split=request.split, columns=request.columns, language=request.language)
    try:
        overlap = plan_training(task, None, options).overlap_removed
    except LmtasksError as error:
        diagnostics.add("note", "train", f"`train` would refuse it as its only data: {error}")
    else:
        if overlap:
            diagnostics.add(
                "note",
                "train",
                f"`train` would remove {rows_text(overlap)} that overlap with its evaluation data",
                overlap,
            )


def _find_suspicious(task: Task, splits: Sequence[_Split], examples: Mapping[str, Example]) -> Iterator[Diagnostic]:
    """Yield what is suspicious in valid examples."""
    yield from repeated_examples(examples, {where: split.name for split in splits for where in split.examples})
    yield from suspicious_texts(examples)
    for split in splits:
        yield from no_references(split.name, list(split.examples.values()))
    yield from suspicious_answers(task, examples)


def _languages(task: Task, examples: Sequence[Example], diagnostics: Diagnostics) -> dict[str, int]:
    samples = [new_sample(task, index, example) for index, example in enumerate(examples) if example.references]
    groups = group_by_language(samples)
    if (message := language_warning(groups)) is not None:
        diagnostics.add("warning", "language", message)
    counted = {
        f"{language or 'unknown'}{'' if stated else ' (script)'}": len(members)
        for (language, stated), members in groups.items()
    }
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _fields(task: Task, splits: Sequence[_Split], examples: Sequence[Example]) -> dict[str, FieldSummary]:
    chosen = [split.columns for split in splits if split.columns]
    if not chosen:
        return {}
    summaries = {
        name: _summary(
            (columns.fields.get(name) for columns in chosen), [example.inputs.get(name, "") for example in examples]
        )
        for name in task.fields
    }
    answers = [text for example in examples for text in example.references]
    filled = sum(any(example.references) for example in examples)
    answered = _summary((column for columns in chosen for column in columns.answer_columns), answers)
    return {**summaries, "references": replace(answered, filled=filled)}


def _summary(columns: Iterable[str | None], texts: Sequence[str]) -> FieldSummary:
    column = " or ".join(dict.fromkeys(column for column in columns if column)) or None
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


def _unused_columns(splits: Sequence[_Split]) -> tuple[str, ...]:
    names = (
        name
        for split in splits
        if split.columns
        for row in split.rows
        for name in row.values
        if name not in split.columns.used
    )
    return tuple(dict.fromkeys(names))
