"""Data sets that a plugin's function yields, checked like those from files."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from lmtasks.data.examples import drop_blank_references
from lmtasks.data.request import DataRequest, NoSplitError
from lmtasks.errors import DataError, option
from lmtasks.isolation import guarded_call
from lmtasks.task import DataFunction, Example, Task
from lmtasks.text_utils import as_utf8, is_blank


def read_function(task: Task, name: str, source: DataFunction, request: DataRequest) -> tuple[str, tuple[Example, ...]]:
    """Return the first requested split that the function has examples for, and these examples.

    Raises:
        DataError: the function failed or yielded something invalid; names the task, the data set and the example.
        NoSplitError: it has no examples for any of the splits.
    """
    if request.columns and not request.ignore_unknown_columns:
        raise DataError(
            f'{name}: {option("columns")} renames columns, but a plugin makes this data set of task "{task.name}"'
        )
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
    with guarded_call(f'{task.label}: reading its data set "{name}" failed', DataError):
        yielded = list(itertools.islice(source.read(split), limit))
    for example in yielded:
        if not isinstance(example, Example):
            raise DataError(
                f'{task.label}: its data set "{name}" yields {type(example).__name__}, expected lmtasks.Example'
            )
        where = f'{task.label}, data set "{name}", example "{example.id}"'
        if (problem := _problem(task, example)) is not None:
            raise DataError(f"{where}: {problem}")
        example = _normalized(example)
        if example.id in checked:
            raise DataError(f"{where}: ids must be unique")
        checked[example.id] = example
    return tuple(checked.values())


def _problem(task: Task, example: Example) -> str | None:
    """Return what is wrong with an example that a function yielded; None: nothing."""
    if not isinstance(example.id, str):
        return "id must be text"
    if is_blank(example.id):
        return "id is empty"
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
    missing = [name for name, field in task.fields.items() if field.required and is_blank(example.inputs.get(name, ""))]
    if missing:
        return f'field "{missing[0]}" is missing'
    unknown = sorted(set(example.inputs) - set(task.fields))
    if unknown:
        return f'"{unknown[0]}" is not a field of the task; it has {", ".join(task.fields)}'
    return None


def _normalized(example: Example) -> Example:
    """Return an example like one from a file: text as UTF-8 can hold it, no empty reference beside others."""
    references = [as_utf8(text) for text in example.references]
    target = None if example.target is None or is_blank(example.target) else as_utf8(example.target)
    return replace(
        example,
        id=as_utf8(example.id),
        inputs={name: as_utf8(text) for name, text in example.inputs.items() if not is_blank(text)},
        references=drop_blank_references(["" if is_blank(text) else text for text in references]) if references else (),
        target=target,
        meta={as_utf8(name): as_utf8(text) for name, text in example.meta.items()},
    )
