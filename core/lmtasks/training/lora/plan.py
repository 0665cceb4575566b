"""The data of a training: read, divided into training, validation and evaluation data, checked without a model."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lmtasks.data import EVAL_SPLITS, DataRequest, Dataset, NoSplitError, input_key, load_dataset
from lmtasks.errors import DataError, UsageError, option
from lmtasks.options import TrainOptions
from lmtasks.plugins import DiscoveredPlugin
from lmtasks.task import Example, Task

TRAIN_SPLITS = ("train", "dev", "validation", "test")
"""Where no split is named, the first of these that the data has is the training data."""
EVAL_SHARE, EVAL_MAX = 0.1, 250
"""Share and largest number of examples that are held out as evaluation data, where there is no other."""
VALIDATION_SHARE, VALIDATION_MAX = 0.05, 100
"""Share and largest number of examples that are held out as validation data."""
SHOWN_IDS = 3
"""Ids of overlapping examples that a message shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """A task and options with the data of a training."""

    task: Task
    plugin: DiscoveredPlugin | None
    options: TrainOptions
    data: Dataset
    """The data as it was read, before anything was held out."""
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    evaluation: Dataset
    overlap_removed: int
    """Number of examples that were left out because the evaluation data has them with other spaces or case."""


def plan_training(task: Task, plugin: DiscoveredPlugin | None, options: TrainOptions) -> TrainingPlan:
    """Read the data of a training, hold out what is needed, and refuse what would falsify its result.

    Raises:
        DataError: data cannot be read, examples have no answer or are in both parts, or there are too few.
        UnknownNameError: the task has no data set of that name.
    """
    request = DataRequest(
        data=options.data,
        split=options.split,
        limit=options.limit,
        columns=options.columns,
        language=options.language,
        prefer=TRAIN_SPLITS,
    )
    data = load_dataset(task, request)
    _refuse_unanswered(task, data)
    evaluation = _evaluation_data(task, data, options)
    remaining, overlap_removed = data.examples, 0
    if evaluation is None:
        count = options.eval_limit or max(1, min(EVAL_MAX, round(EVAL_SHARE * len(remaining))))
        remaining, held_out = _hold_out(remaining, count, options.seed)
        split = f"{data.split + ', ' if data.split else ''}{len(held_out)} held out by seed {options.seed}"
        if not held_out:
            raise DataError(
                f"{data.name}: no evaluation data can be held out, all {len(data.examples)} examples have the same"
                f" inputs; give other data with {option('eval_data')}"
            )
        evaluation = replace(data, examples=held_out, split=split)
    else:
        remaining, overlap_removed = _remove_overlap(data, evaluation)
    count = min(VALIDATION_MAX, round(VALIDATION_SHARE * len(remaining)))
    if options.validation is not None:
        count = options.validation
    train, validation = _hold_out(remaining, count, options.seed + 1)
    if options.early_stopping is not None and not validation:
        raise UsageError(
            f"{option('early_stopping')} needs validation examples, and of {len(remaining)} none are held out; set"
            f" {option('validation')} to 1 or more"
        )
    if not train:
        raise DataError(
            f"{data.name}: no training data is left of {len(data.examples)} examples, with {len(evaluation.examples)}"
            f" held out for evaluation and {len(validation)} for validation; give more data, or evaluation data of"
            f" its own with {option('eval_data')}"
        )
    return TrainingPlan(
        task=task,
        plugin=plugin,
        options=options,
        data=data,
        train=train,
        validation=validation,
        evaluation=evaluation,
        overlap_removed=overlap_removed,
    )


def _evaluation_data(task: Task, data: Dataset, options: TrainOptions) -> Dataset | None:
    """Return the evaluation data that was named, or another split of the training data, or None."""
    if options.eval_data is not None:
        request = DataRequest(
            data=options.eval_data,
            split=options.eval_split,
            limit=options.eval_limit,
            columns=options.columns,
            language=options.language,
            ignore_unknown_columns=Path(str(options.eval_data)) != Path(data.name),
        )
        return load_dataset(task, request)
    splits = [options.eval_split] if options.eval_split else [name for name in EVAL_SPLITS if name != data.split]
    for split in splits if data.split or options.eval_split else ():
        request = DataRequest(
            data=data.name if options.data is not None else None,
            split=split,
            limit=options.eval_limit,
            columns=options.columns,
            language=options.language,
        )
        try:
            return load_dataset(task, request)
        except NoSplitError:
            if options.eval_split:
                raise
    return None


def _hold_out(examples: tuple[Example, ...], count: int, seed: int) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Divide examples into those that are kept and about `count` that are held out; equal inputs stay together."""
    by_inputs: dict[object, list[int]] = {}
    for index, example in enumerate(examples):
        by_inputs.setdefault(input_key(example), []).append(index)
    groups: list[list[int]] = list(by_inputs.values())
    random.Random(seed).shuffle(groups)  # noqa: S311 - a draw to repeat, not a secret
    chosen: set[int] = set()
    for group in groups:
        if len(chosen) + len(group) <= count:
            chosen.update(group)
    if count and not chosen and len(groups) > 1:
        smallest = min(groups, key=len)
        chosen.update(smallest)
    kept = tuple(example for index, example in enumerate(examples) if index not in chosen)
    return kept, tuple(examples[index] for index in sorted(chosen))


def _refuse_unanswered(task: Task, data: Dataset) -> None:
    """Refuse data with examples that have no answer.

    Raises:
        DataError: names the first of them, and the columns that an answer may be in.
    """
    unanswered = [example.id for example in data.examples if example.answer is None]
    if unanswered:
        columns = _joined(("target", "references", *task.references))
        raise DataError(
            f"{data.name}: {len(unanswered)} of {len(data.examples)} examples have no answer to train on (first:"
            f' "{unanswered[0]}"); the answer\'s column is one of {columns}, or name it with'
            f" {option('columns', {'references': 'COLUMN'})}"
        )


def _remove_overlap(data: Dataset, evaluation: Dataset) -> tuple[tuple[Example, ...], int]:
    """Return the examples that are not in the evaluation data, and how many were left out.

    Exact copies are refused: the wrong file or split was named. Examples that differ in spaces or case alone occur in
    public data sets, unnoticed by their authors: they are left out of the training data, and reported.

    Raises:
        DataError: an example is in both.
    """
    exact = {tuple(sorted(example.inputs.items())) for example in evaluation.examples}
    both = [example.id for example in data.examples if tuple(sorted(example.inputs.items())) in exact]
    if both:
        shown = ", ".join(f'"{id}"' for id in both[:SHOWN_IDS])
        raise DataError(
            f"{data.name}: {len(both)} examples are in the evaluation data {evaluation.name} too (first: {shown});"
            " scores of examples that were trained on mean nothing: remove them from one of the two"
        )
    keys = {input_key(example) for example in evaluation.examples}
    kept = tuple(example for example in data.examples if input_key(example) not in keys)
    return kept, len(data.examples) - len(kept)


def _joined(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
