"""Examples that a prompt shows, drawn from data that is not scored."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from lmtasks.data.load import load_dataset
from lmtasks.data.overlap import input_key
from lmtasks.data.request import DataRequest, Dataset, NoSplitError
from lmtasks.errors import DataError, option
from lmtasks.task import Example, Task

FEWSHOT_SPLITS = ("train", "dev", "validation")
"""Few-shot examples come from the first of these that is not scored."""


@dataclass(frozen=True, slots=True)
class FewShot:
    """The examples that a prompt shows, in order, and the set they were drawn from."""

    pool: Dataset
    examples: tuple[Example, ...]


def load_fewshot(task: Task, dataset: Dataset, *, count: int, seed: int, data: str | Path | None) -> FewShot:
    """Draw the examples that the prompt shows, from data that is not scored.

    Args:
        task: whose prompt shows them.
        dataset: the examples that are scored; none that asks the same is drawn, and none of several that ask the same
            but the first.
        count: how many to draw, at least 1.
        seed: decides which, and in which order.
        data: where to draw from, as in `DataRequest.data`; None: another split of the scored set, or else of
            the task's demo.

    Raises:
        DataError: there are fewer than `count` different examples with an answer to draw from.
    """
    pool = _fewshot_pool(task, dataset, data)
    scored = {input_key(example) for example in dataset.examples}
    different: dict[object, Example] = {}
    for example in pool.examples:
        if example.answer and (asked := input_key(example)) not in scored:
            different.setdefault(asked, example)
    usable = list(different.values())
    if len(usable) < count:
        raise DataError(
            f"{pool.name}: {len(usable)} different examples to show (not scored themselves, with an answer), but"
            f" {count} were asked for; lower {option('num_fewshot')} or name a larger set with"
            f" {option('fewshot_data')}"
        )
    return FewShot(pool, tuple(random.Random(seed).sample(usable, count)))  # noqa: S311 - a draw to repeat, not a secret


def _fewshot_pool(task: Task, dataset: Dataset, data: str | Path | None) -> Dataset:
    """Return a split that is not scored: of the named set, or else of the scored one, or else of the task's demo."""
    for name in dict.fromkeys([data] if data else [dataset.name, next(iter(task.datasets))]):
        same = name == dataset.name
        for split in FEWSHOT_SPLITS:
            if same and split == dataset.split:
                continue
            try:
                request = DataRequest(data=name, split=split, columns=dataset.columns, ignore_unknown_columns=not same)
                return load_dataset(task, request)
            except NoSplitError:
                continue
    if data:
        return load_dataset(task, DataRequest(data=data, columns=dataset.columns, ignore_unknown_columns=True))
    raise DataError(
        f"{dataset.name}: no other split to draw few-shot examples from; name a set with {option('fewshot_data')}"
    )
