"""A data file checked for a task: everything that `run`, `score` and `train` would say about it, all at once."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lmtasks.data import DataRequest, load_dataset
from lmtasks.data.columns import Columns, choose_columns
from lmtasks.data.diagnostics import COMMANDS, Diagnostic, Diagnostics
from lmtasks.data.examples import make_example, warn_of_damage, warn_of_missing_ids
from lmtasks.data.files import read_rows
from lmtasks.data.list_literals import JSON_OBJECT, refuse_printed, warn_of_lists
from lmtasks.data.load import has_splits, no_split, split_of
from lmtasks.data.rows import Row
from lmtasks.data.text_checks import in_rows, no_references, odd_answers, odd_texts, repeated
from lmtasks.errors import DataError, LmtasksError
from lmtasks.metrics import check_references, find_metrics
from lmtasks.metrics.language import group_by_language, language_warning
from lmtasks.paths import user_path
from lmtasks.plugins import Registry, find_task
from lmtasks.runs.options import check_language
from lmtasks.runs.samples import new_sample
from lmtasks.task import Example, Task
from lmtasks.training import TrainOptions, plan_training

WITH_INPUTS = ("run", "train")
"""The commands that need the inputs of a task; outputs made elsewhere are scored without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSummary:
    """One input of a task, or its references, in a data file."""

    column: str | None
    """None: the file has none for it."""
    filled: int
    """Rows that hold text there."""
    shortest: int = 0
    """Length of the shortest text, in characters."""
    median: int = 0
    longest: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCheck:
    """What a data file holds, and what is wrong with it."""

    data: str
    task: str
    rows: int
    examples: int
    """Rows that are good examples of the task; where columns of inputs are missing, good ones for `score`."""
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
    diagnostics: tuple[Diagnostic, ...]
    """Errors first."""

    @property
    def ok(self) -> bool:
        """Whether nothing would be refused."""
        return not self.refused_by

    @property
    def refused_by(self) -> tuple[str, ...]:
        """The commands that would refuse the file: some of "run", "score", "train"."""
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
    diagnostics = Diagnostics()
    with diagnostics.of_log("lmtasks.data"):
        rows: list[Row] = []
        lines = read_rows(path, on_error=lambda error: diagnostics.error("unreadable-row", error))
        with diagnostics.of_errors("unreadable-file"):
            rows.extend(lines)
        every = _split_rows(path, rows, diagnostics)
        splits = [each for each in every if split in (None, each.name)]
        if every and not splits:
            diagnostics.error("no-split", no_split(str(path), str(split), [each.name for each in every if each.name]))
        for each in splits:
            _choose(found, each, columns or {}, diagnostics)
            _make_examples(found, each, language, diagnostics)
        examples = {where: example for each in splits for where, example in each.examples.items()}
        diagnostics.all += _suspicions(found, splits, examples)
        if not diagnostics.errors:
            _commands(found, DataRequest(data=path, split=split, columns=columns or {}, language=language), diagnostics)
    languages = _languages(found, list(examples.values()), diagnostics)
    with diagnostics.of_errors("metric", ("run", "score")):
        check_references(find_metrics(found.metrics, registry.metric), examples.values())
    return DataCheck(
        data=str(path),
        task=found.name,
        rows=len(rows) if split is None else sum(len(each.rows) for each in splits),
        examples=len(examples),
        splits={each.name: len(each.rows) for each in every if each.name is not None},
        fields=_fields(found, splits, list(examples.values())),
        other_columns=_others(splits),
        languages=languages,
        references=dict(sorted(Counter(len(example.references) for example in examples.values()).items())),
        no_answer=sum(example.references == ("",) for example in examples.values()),
        diagnostics=diagnostics.sorted(),
    )


@dataclass(slots=True)
class _Split:
    """The rows of one split, or of a file without splits, and what became of them."""

    name: str | None
    rows: Sequence[Row]
    columns: Columns | None = None
    """None: none can be chosen, or there are no rows."""
    with_inputs: bool = True
    """Whether the columns hold the inputs of the task, or right answers alone."""
    examples: dict[str, Example] = field(default_factory=dict)
    """The good ones, by the place they stand at."""


def _split_rows(path: Path, rows: Sequence[Row], diagnostics: Diagnostics) -> list[_Split]:
    """Divide rows as `run` would."""
    if not rows:
        if not diagnostics.errors:
            diagnostics.error("no-rows", DataError(f"{path}: no data rows; expected at least one example"))
        return []
    groups: dict[str | None, list[Row]] = {}
    if has_splits(rows):
        for row in rows:
            with diagnostics.of_errors("no-split"):
                groups.setdefault(split_of(row), []).append(row)
    else:
        groups[None] = list(rows)
    return [_Split(name, group) for name, group in groups.items()]


def _choose(task: Task, split: _Split, mapping: Mapping[str, str], diagnostics: Diagnostics) -> None:
    """Choose the columns of a split, and look at these as a whole."""
    try:
        split.columns = choose_columns(task, split.rows, mapping)
    except DataError as error:
        split.columns, split.with_inputs = _answers_alone(task, split.rows, mapping), False
        diagnostics.error("no-column", error, WITH_INPUTS if split.columns else COMMANDS)
    if split.columns is None:
        return
    for column in split.columns.answers:
        with diagnostics.of_errors("printed-list"):
            refuse_printed(split.rows, column)
            warn_of_lists(split.rows, column)
    for column in split.columns.fields.values() if split.with_inputs else ():
        with diagnostics.of_errors("printed-list", WITH_INPUTS):
            refuse_printed(split.rows, column, allowed=JSON_OBJECT)
    warn_of_damage(split.rows, split.columns)
    warn_of_missing_ids(split.rows, split.columns)


def _answers_alone(task: Task, rows: Sequence[Row], mapping: Mapping[str, str]) -> Columns | None:
    """Return the columns that `score` chooses where inputs are missing; None: it finds none, or no right answers."""
    try:
        chosen = choose_columns(task, rows, mapping, require_inputs=False)
    except DataError:
        return None
    return chosen if chosen.answers else None


def _make_examples(task: Task, split: _Split, language: str | None, diagnostics: Diagnostics) -> None:
    """Make the good examples of a split."""
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
                f'{row.where}: id "{example.id}" stands already at {first[example.id]}; ids must be unique within a'
                " split"
            )
            diagnostics.error("repeated-id", DataError(message))
        first.setdefault(example.id, row.where)
        with diagnostics.of_errors("bad-example", WITH_INPUTS):
            if split.with_inputs:
                make_example(task, row, split.columns, language=language)
            split.examples[row.where] = example


def _commands(task: Task, request: DataRequest, diagnostics: Diagnostics) -> None:
    """Read the data as `run` and as `train` do, for what only shows then."""
    with diagnostics.of_errors("run", ("run", "score")):
        load_dataset(task, request)
    options = TrainOptions(data=request.data, split=request.split, columns=request.columns, language=request.language)
    try:
        leaks = plan_training(task, None, options).overlap_removed
    except LmtasksError as error:
        diagnostics.add("note", "train", f"`train` would refuse it as the only data: {error}")
    else:
        if leaks:
            diagnostics.add("note", "train", f"`train` would leave out {in_rows(leaks)} that it scores too", leaks)


def _suspicions(task: Task, splits: Sequence[_Split], examples: Mapping[str, Example]) -> Iterator[Diagnostic]:
    """Yield what is suspicious in good examples."""
    yield from repeated(examples, {where: split.name for split in splits for where in split.examples})
    yield from odd_texts(examples)
    for split in splits:
        yield from no_references(split.name, list(split.examples.values()))
    yield from odd_answers(task, examples)


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
    answered = _summary((column for columns in chosen for column in columns.answers), answers)
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


def _others(splits: Sequence[_Split]) -> tuple[str, ...]:
    names = (
        name
        for split in splits
        if split.columns
        for row in split.rows
        for name in row.values
        if name not in split.columns.used
    )
    return tuple(dict.fromkeys(names))
