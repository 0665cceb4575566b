"""Few-shot examples: drawn from data that is not scored."""

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
"""Splits to draw few-shot examples from; the first that is not scored is used."""


@dataclass(frozen=True, slots=True)
class FewShot:
    """The few-shot examples of a prompt, in order, and the data set they were drawn from."""

    pool: Dataset
    examples: tuple[Example, ...]


def load_fewshot(task: Task, dataset: Dataset, *, count: int, seed: int, data: str | Path | None) -> FewShot:
    """Draw few-shot examples from data that is not scored.

    Args:
        task: the task whose prompt shows them.
        dataset: the examples that are scored. No example with the same inputs is drawn, and of several examples with
            the same inputs only the first.
        count: how many to draw, at least 1.
        seed: seed of the draw.
        data: the data to draw from, as in `DataRequest.data`; None: another split of the scored data set, or else of
            the task's demo.

    Raises:
        DataError: there are fewer than `count` different examples with an answer to draw from.
    """
    pool = _fewshot_pool(task, dataset, data)
    scored = {input_key(example) for example in dataset.examples}
    different: dict[object, Example] = {}
    for example in pool.examples:
        if example.answer and (key := input_key(example)) not in scored:
            different.setdefault(key, example)
    candidates = list(different.values())
    if len(candidates) < count:
        raise DataError(
            f"{pool.name}: {len(candidates)} different examples to show (not scored, with an answer), but"
            f" {count} were asked for; lower {option('num_fewshot')} or name a larger set with"
            f" {option('fewshot_data')}"
        )
    return FewShot(pool, tuple(random.Random(seed).sample(candidates, count)))  # noqa: S311 - reproducible, not secret


def _fewshot_pool(task: Task, dataset: Dataset, data: str | Path | None) -> Dataset:
    """Return a split that is not scored: of the named data set, or else of the scored one, or else of the demo."""
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
