"""From what `--data` says to the examples of one split, checked before any model is loaded."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lmtasks.characters import as_utf8
from lmtasks.data.columns import SPLIT, Columns, choose_columns, lookup, make_examples
from lmtasks.data.hub import PREFIX, hub_rows, hub_splits, parse_hub
from lmtasks.data.rows import SUFFIXES, Row, file_sha256, read_rows
from lmtasks.errors import DataError, unknown_name
from lmtasks.foreign import foreign
from lmtasks.task import DataFile, DataFunction, DataSource, Example, HubDataset, Task

log = logging.getLogger("lmtasks.data")
SCORED = ("test", "devtest", "validation", "dev", "train")
"""Where no split is asked for, the first of these that the data has is scored."""
TAUGHT = ("train", "dev", "validation")
"""Few-shot examples come from the first of these that is not scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRequest:
    """What a user asks for; everything has a default in the task."""

    data: str | Path | None = None
    """A named set of the task, a file, or hub:ID[@REVISION][#CONFIG]; None: the task's demo."""
    split: str | None = None
    """None: the first of `prefer` that the data has."""
    limit: int | None = None
    """At most this many examples, the first ones."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field to column, where the data uses other names than the task knows."""
    language: str | None = None
    """Of all references, over what the data and the task say."""
    lenient: bool = False
    """Whether `columns` were meant for other data, and count only where this has them."""
    prefer: tuple[str, ...] = SCORED
    need_inputs: bool = True
    """Whether every example needs what its task requires; only references are scored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The examples of one split, and where they come from."""

    name: str
    split: str | None
    """None: the set has no splits."""
    examples: tuple[Example, ...]
    file_sha256: str | None
    """Of the file's bytes, where there is one."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """As the user mapped them; they hold for its other splits too."""

    @property
    def sha256(self) -> str:
        """The hash of the examples themselves, so that the same data in another file format is known again."""
        digest = hashlib.sha256()
        for example in self.examples:
            record = {
                "id": example.id,
                "inputs": dict(example.inputs),
                "references": list(example.references),
                "target": example.target,
                "language": example.language,
            }
            digest.update(json.dumps(record, sort_keys=True).encode() + b"\n")
        return digest.hexdigest()


def load_dataset(task: Task, request: DataRequest) -> Dataset:
    """Read and check the examples that a request names.

    Raises:
        DataError: there is no such data, or it is not what the task needs; names file, line and field.
        UnknownNameError: the task has no set of that name.
    """
    name, source = _find_source(task, request.data)
    split: str | None
    if isinstance(source, HubDataset):
        split = _choose_split(name, hub_splits(source), request)
        rows = hub_rows(source, split)
        sha256 = None
    elif isinstance(source, DataFile):
        split, rows = _split_rows(name, read_rows(source.path), request)
        sha256 = file_sha256(source.path)
    else:
        split, examples = _from_function(task, name, source, request)
        return Dataset(name=name, split=split, examples=examples, file_sha256=None)
    taken = list(itertools.islice(rows, request.limit))
    if not taken:
        raise DataError(f"{name}: no data rows; expected at least one example")
    columns = {**source.columns, **request.columns}
    chosen = choose_columns(task, taken, columns, lenient=request.lenient, need_inputs=request.need_inputs)
    if isinstance(source, HubDataset) and request.need_inputs:
        taken = _complete(task, name, taken, chosen)
    examples = tuple(
        replace(example, language=example.language or source.language)
        for example in make_examples(task, taken, chosen, language=request.language, need_inputs=request.need_inputs)
    )
    return Dataset(name=name, split=split, examples=examples, file_sha256=sha256, columns=request.columns)


def _complete(task: Task, name: str, rows: list[Row], columns: Columns) -> list[Row]:
    """Leave out the rows of a hub set that lack an input: unlike one's own file, it cannot be mended."""
    needed = {field: column for field, column in columns.fields.items() if task.fields[field].required}
    lacking = [
        (row, field)
        for row in rows
        for field, column in needed.items()
        if (value := lookup(row.values, column)) is None or (isinstance(value, str) and not value.strip())
    ]
    if not lacking:
        return rows
    left_out = {row.number for row, _ in lacking}
    if len(left_out) == len(rows):
        raise DataError(f'{lacking[0][0].where}: field "{lacking[0][1]}" is missing, here and in every other row')
    log.warning(
        '%s: %d of %d rows left out, for they have no "%s" (the first: %s)',
        name,
        len(left_out),
        len(rows),
        lacking[0][1],
        lacking[0][0].where,
    )
    return [row for row in rows if row.number not in left_out]


@dataclass(frozen=True, slots=True)
class FewShot:
    """The examples that a prompt shows, in order, and the set they were drawn from."""

    pool: Dataset
    examples: tuple[Example, ...]


def load_fewshot(task: Task, dataset: Dataset, *, count: int, seed: int, data: str | Path | None) -> FewShot:
    """Draw the examples that the prompt shows, from data that is not scored.

    Args:
        task: whose prompt shows them.
        dataset: the examples that are scored; none that asks the same is drawn.
        count: how many to draw, at least 1.
        seed: decides which, and in which order.
        data: where to draw from, as in `DataRequest.data`; None: another split of the scored set, or else of
            the task's demo.

    Raises:
        DataError: there are fewer than `count` examples with an answer to draw from.
    """
    pool = _fewshot_pool(task, dataset, data)
    asked = {tuple(sorted(example.inputs.items())) for example in dataset.examples}
    usable = [
        example for example in pool.examples if example.answer and tuple(sorted(example.inputs.items())) not in asked
    ]
    if len(usable) < count:
        raise DataError(
            f"{pool.name}: {len(usable)} examples to show (not scored themselves, with an answer), but"
            f" {count} were asked for; lower --num-fewshot or name a larger set with --fewshot-data"
        )
    return FewShot(pool, tuple(random.Random(seed).sample(usable, count)))  # noqa: S311 - a draw to repeat, not a secret


def _fewshot_pool(task: Task, dataset: Dataset, data: str | Path | None) -> Dataset:
    """Return a split that is not scored: of the named set, or else of the scored one, or else of the task's demo."""
    for name in dict.fromkeys([data] if data else [dataset.name, next(iter(task.datasets))]):
        same = name == dataset.name
        for split in TAUGHT:
            if same and split == dataset.split:
                continue
            try:
                request = DataRequest(data=name, split=split, columns=dataset.columns, lenient=not same)
                return load_dataset(task, request)
            except NoSplitError:
                continue
    if data:
        return load_dataset(task, DataRequest(data=data, columns=dataset.columns, lenient=True))
    raise DataError(f"{dataset.name}: no other split to draw few-shot examples from; name a set with --fewshot-data")


class NoSplitError(DataError):
    """The data has no split of that name."""


def _find_source(task: Task, data: str | Path | None) -> tuple[str, DataSource]:
    if data is None:
        return next(iter(task.datasets.items()))
    data = str(data)
    if data.startswith(PREFIX):
        return data, parse_hub(data)
    if data in task.datasets:
        return data, task.datasets[data]
    path = Path(data).expanduser()
    if path.exists() or path.suffix.lower() in SUFFIXES or len(path.parts) > 1:
        return str(path), DataFile(path=path)
    raise unknown_name(f'data set of task "{task.name}" (or file)', data, task.datasets)


def _choose_split(name: str, splits: Sequence[str], request: DataRequest) -> str:
    wanted = request.split
    if wanted is None:
        wanted = next((split for split in request.prefer if split in splits), None)
        if wanted is None:
            raise NoSplitError(f"{name}: choose one of its splits with --split: {', '.join(splits)}")
    elif wanted not in splits:
        raise NoSplitError(f'{name}: no split "{wanted}"; it has {", ".join(splits)}')
    return wanted


def _split_rows(name: str, rows: Iterator[Row], request: DataRequest) -> tuple[str | None, Iterator[Row]]:
    """Take the rows of one split of a file, by its column "split".

    A file without one is taken whole, and read no further than the limit.
    """
    head = list(itertools.islice(rows, request.limit))
    if head and all(row.values.get(SPLIT) is None for row in head):
        if request.split is not None:
            raise NoSplitError(f'{name}: no split "{request.split}": the file has no column "{SPLIT}"')
        return None, iter(head)
    every = [*head, *rows]
    for row in every:
        if row.values.get(SPLIT) is None:
            raise DataError(f'{row.where}: no value in column "{SPLIT}", though other rows have one')
    splits = list(dict.fromkeys(str(row.values[SPLIT]) for row in every))
    split = _choose_split(name, splits, request) if splits else None
    return split, (row for row in every if str(row.values[SPLIT]) == split)


def _from_function(
    task: Task, name: str, source: DataFunction, request: DataRequest
) -> tuple[str, tuple[Example, ...]]:
    if request.columns and not request.lenient:
        raise DataError(f'{name}: --map renames columns, but this set of task "{task.name}" is made by its plugin')
    for split in [request.split] if request.split else request.prefer:
        examples = _checked(task, name, source, split, request.limit)
        if examples:
            if request.language is not None:
                examples = tuple(replace(example, language=request.language) for example in examples)
            return split, examples
    wanted = f'in split "{request.split}"' if request.split else f"in any of {', '.join(request.prefer)}"
    raise NoSplitError(f'task "{task.name}": its data set "{name}" has no examples {wanted}')


def _checked(task: Task, name: str, source: DataFunction, split: str, limit: int | None) -> tuple[Example, ...]:
    checked: dict[str, Example] = {}
    with foreign(f'{task.label}: reading its data set "{name}" failed', DataError):
        found = list(itertools.islice(source.read(split), limit))
    for example in found:
        if not isinstance(example, Example):
            raise DataError(
                f'{task.label}: its data set "{name}" yields {type(example).__name__}, expected lmtasks.Example'
            )
        where = f'{task.label}, data set "{name}", example "{example.id}"'
        if (problem := _problem(task, example)) is not None:
            raise DataError(f"{where}: {problem}")
        example = _as_utf8(example)
        if example.id in checked:
            raise DataError(f"{where}: ids must be unique")
        checked[example.id] = example
    return tuple(checked.values())


def _problem(task: Task, example: Example) -> str | None:
    """Return what is wrong with an example that a function made; None: nothing."""
    if not isinstance(example.id, str):
        return "id must be text"
    for part in ("inputs", "meta"):
        held = getattr(example, part)
        if not isinstance(held, Mapping) or not all(isinstance(text, str) for pair in held.items() for text in pair):
            return f"{part} must be text by name"
    if isinstance(example.references, str) or not isinstance(example.references, Sequence):
        return "references must be a tuple of texts"
    if not all(isinstance(text, str) for text in example.references):
        return "references must be text"
    for part in ("target", "language"):
        if not isinstance(getattr(example, part), str | None):
            return f"{part} must be text or None"
    missing = [name for name, field in task.fields.items() if field.required and not example.inputs.get(name)]
    if missing:
        return f'field "{missing[0]}" is missing'
    unknown = sorted(set(example.inputs) - set(task.fields))
    if unknown:
        return f'"{unknown[0]}" is no field of the task; it has {", ".join(task.fields)}'
    return None


def _as_utf8(example: Example) -> Example:
    """Return an example without halves of surrogate pairs, as data from files is."""
    return replace(
        example,
        id=as_utf8(example.id),
        inputs={name: as_utf8(text) for name, text in example.inputs.items()},
        references=tuple(as_utf8(text) for text in example.references),
        target=None if example.target is None else as_utf8(example.target),
        meta={as_utf8(name): as_utf8(text) for name, text in example.meta.items()},
    )
