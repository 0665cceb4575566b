"""What is learned, what it is validated and scored on: read, divided and checked before a model is loaded."""

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
"""Where no split is asked for, the first of these that the data has is learned."""
EVAL_SHARE, EVAL_MOST = 0.1, 250
"""Of the data that are held out to be scored, where there is nothing else to score."""
VALIDATION_SHARE, VALIDATION_MOST = 0.05, 100
SHOWN_LEAKS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """A training with everything that can be checked before a model is loaded."""

    task: Task
    plugin: DiscoveredPlugin | None
    options: TrainOptions
    data: Dataset
    """As it was read, before anything was held out."""
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    evaluation: Dataset
    leaks: int
    """Examples that were not learned because they are scored too, but for space and case."""


def plan_training(task: Task, plugin: DiscoveredPlugin | None, options: TrainOptions) -> TrainingPlan:
    """Read the data of a training, hold out what is needed, and refuse what would falsify its result.

    Raises:
        DataError: data cannot be read, examples have no answer or stand in both parts, or there are too few.
        UnknownNameError: the task has no set of that name.
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
    evaluation = _evaluation(task, data, options)
    learned, leaks = data.examples, 0
    if evaluation is None:
        count = options.eval_limit or max(1, min(EVAL_MOST, round(EVAL_SHARE * len(learned))))
        learned, held_out = _hold_out(learned, count, options.seed)
        split = f"{data.split + ', ' if data.split else ''}{len(held_out)} held out by seed {options.seed}"
        if not held_out:
            raise DataError(
                f"{data.name}: nothing can be held out to be scored, all {len(data.examples)} examples ask the same;"
                f" name other data with {option('eval_data')}"
            )
        evaluation = replace(data, examples=held_out, split=split)
    else:
        learned, leaks = _without_leaks(data, evaluation)
    count = min(VALIDATION_MOST, round(VALIDATION_SHARE * len(learned)))
    if options.validation is not None:
        count = options.validation
    train, validation = _hold_out(learned, count, options.seed + 1)
    if options.early_stopping is not None and not validation:
        raise UsageError(
            f"{option('early_stopping')} needs validation examples, and none of {len(learned)} are held out; give"
            f" their number with {option('validation')}"
        )
    if not train:
        raise DataError(
            f"{data.name}: nothing is left to learn of {len(data.examples)} examples, with {len(evaluation.examples)}"
            f" held out to be scored and {len(validation)} to validate; give more data, or data of its own with"
            f" {option('eval_data')}"
        )
    return TrainingPlan(
        task=task,
        plugin=plugin,
        options=options,
        data=data,
        train=train,
        validation=validation,
        evaluation=evaluation,
        leaks=leaks,
    )


def _evaluation(task: Task, data: Dataset, options: TrainOptions) -> Dataset | None:
    """Return the data to be scored that was named, or another split of what is learned, or None."""
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
    """Divide examples into those that stay and about `count` that are held out; what asks the same stays together."""
    alike: dict[object, list[int]] = {}
    for place, example in enumerate(examples):
        alike.setdefault(input_key(example), []).append(place)
    groups = list(alike.values())
    random.Random(seed).shuffle(groups)  # noqa: S311 - a draw to repeat, not a secret
    chosen: set[int] = set()
    for group in groups:
        if len(chosen) + len(group) <= count:
            chosen.update(group)
    if count and not chosen and len(groups) > 1:
        smallest = min(groups, key=len)
        chosen.update(smallest)
    kept = tuple(example for place, example in enumerate(examples) if place not in chosen)
    return kept, tuple(examples[place] for place in sorted(chosen))


def _refuse_unanswered(task: Task, data: Dataset) -> None:
    without = [example.id for example in data.examples if example.answer is None]
    if without:
        columns = _listed(("target", "references", *task.references))
        raise DataError(
            f"{data.name}: {len(without)} of {len(data.examples)} examples have no answer to learn (first:"
            f' "{without[0]}"); the answer\'s column is one of {columns}, or name it with'
            f" {option('columns', {'references': 'COLUMN'})}"
        )


def _without_leaks(data: Dataset, evaluation: Dataset) -> tuple[tuple[Example, ...], int]:
    """Return the examples that are not to be scored too, and how many were left out.

    Very copies are refused: the wrong file or split was named. What only looks different (space, case) stands in
    public sets, unknown to those who made them: it is left out of what is learned, and told.

    Raises:
        DataError: an example stands in both.
    """
    scored = {tuple(sorted(example.inputs.items())) for example in evaluation.examples}
    both = [example.id for example in data.examples if tuple(sorted(example.inputs.items())) in scored]
    if both:
        shown = ", ".join(f'"{id}"' for id in both[:SHOWN_LEAKS])
        raise DataError(
            f"{data.name}: {len(both)} examples are in {evaluation.name} too, which is to be scored (first: {shown});"
            " scores of what was learned by heart mean nothing: take them out of one of the two"
        )
    alike = {input_key(example) for example in evaluation.examples}
    kept = tuple(example for example in data.examples if input_key(example) not in alike)
    return kept, len(data.examples) - len(kept)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
