"""Data sets from the Hugging Face hub, through `datasets`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

from lmtasks.data.arrow_values import BATCH, table_rows
from lmtasks.data.rows import Row
from lmtasks.errors import DataError
from lmtasks.task import HubDataset

PREFIX = "hub:"


def parse_hub(text: str) -> HubDataset:
    """Read "hub:ID[@REVISION][#CONFIG]".

    Raises:
        DataError: the text has no ID.
    """
    match = re.fullmatch(r"hub:(?P<id>[^@#]+)(?:@(?P<revision>[^#]+))?(?:#(?P<config>.+))?", text)
    if match is None:
        raise DataError(f'"{text}": expected hub:ID, hub:ID@REVISION, hub:ID#CONFIG or hub:ID@REVISION#CONFIG')
    return HubDataset(id=match["id"], revision=match["revision"], config=match["config"])


def hub_splits(dataset: HubDataset) -> list[str]:
    """Return the names of a data set's splits.

    Raises:
        DataError: it cannot be reached, or needs a choice that was not made.
    """
    import datasets

    with _one_line(dataset):
        return [
            str(name)
            for name in datasets.get_dataset_split_names(dataset.id, dataset.config, revision=dataset.revision)
        ]


def hub_rows(dataset: HubDataset, split: str) -> Iterator[Row]:
    """Yield the rows of a split.

    Raises:
        DataError: as for `hub_splits`.
    """
    import datasets

    number = 0
    with _one_line(dataset):
        data = datasets.load_dataset(dataset.id, dataset.config, revision=dataset.revision, split=split)
        batches = data.with_format("arrow").iter(BATCH)
    while True:
        with _one_line(dataset):
            batch = next(batches, None)
            rows = [] if batch is None else table_rows(batch)
        if batch is None:
            return
        for values in rows:
            number += 1
            yield Row(f"{dataset} split {split}, row {number}", number, values)


class _one_line:
    """Turn what `datasets` and the hub's client raise into one DataError.

    They raise from several families (OSError, ValueError, their own), with advice in many lines.
    """

    def __init__(self, dataset: HubDataset) -> None:
        self.dataset = dataset
        self.log = logging.getLogger("huggingface_hub")

    def __enter__(self) -> None:
        import datasets

        self.bars = datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        # The hub's client tells of each attempt; what counts comes as one error.
        self.level = self.log.level
        self.log.setLevel(logging.CRITICAL)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        import datasets

        self.log.setLevel(self.level)
        if not self.bars:
            datasets.enable_progress_bars()
        if not isinstance(error, Exception):
            return
        text = " ".join(str(error).split())
        if isinstance(error, ConnectionError) or "offline" in text.lower() or "connect" in text.lower():
            raise DataError(
                f"{self.dataset}: the hub cannot be reached. Download the set where there is a network and give"
                f" its JSONL, CSV or Parquet file, or try again later. ({text[:160]})"
            ) from error
        raise DataError(f"{self.dataset}: {text[:400] or type(error).__name__}") from error
