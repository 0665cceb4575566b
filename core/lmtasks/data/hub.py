"""Reads data sets of the Hugging Face hub with `datasets`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

from lmtasks.data.arrow_values import BATCH_ROWS, table_rows
from lmtasks.data.rows import Row
from lmtasks.errors import DataError
from lmtasks.task import HubDataset

HUB_PREFIX = "hub:"


def parse_hub(text: str) -> HubDataset:
    """Parse "hub:ID[@REVISION][#CONFIG]".

    Raises:
        DataError: the text has another form.
    """
    match = re.fullmatch(r"hub:(?P<id>[^@#]+)(?:@(?P<revision>[^#]+))?(?:#(?P<config>.+))?", text)
    if match is None:
        raise DataError(f'"{text}": expected hub:ID, hub:ID@REVISION, hub:ID#CONFIG or hub:ID@REVISION#CONFIG')
    return HubDataset(id=match["id"], revision=match["revision"], config=match["config"])


def hub_splits(dataset: HubDataset) -> list[str]:
    """Return the names of a data set's splits.

    Raises:
        DataError: the hub cannot be reached, there is no such data set, or it needs a config.
    """
    import datasets

    with _HubErrors(dataset):
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
    with _HubErrors(dataset):
        data = datasets.load_dataset(dataset.id, dataset.config, revision=dataset.revision, split=split)
        batches = data.with_format("arrow").iter(BATCH_ROWS)
    while True:
        with _HubErrors(dataset):
            batch = next(batches, None)
            rows = [] if batch is None else table_rows(batch)
        if batch is None:
            return
        for values in rows:
            number += 1
            yield Row(f"{dataset} split {split}, row {number}", number, values)


class _HubErrors:
    """Turns the errors of `datasets` and the hub's client into one DataError.

    They raise errors of several families (OSError, ValueError, their own), with advice in many lines.
    """

    def __init__(self, dataset: HubDataset) -> None:
        self.dataset = dataset
        self.log = logging.getLogger("huggingface_hub")

    def __enter__(self) -> None:
        import datasets

        self.bars = datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        # The hub's client logs each attempt; one error follows in the end.
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
                f"{self.dataset}: the hub cannot be reached. Download the data set on a machine with a network and give"
                f" its JSONL, CSV or Parquet file, or try again later. ({text[:160]})"
            ) from error
        raise DataError(f"{self.dataset}: {text[:400] or type(error).__name__}") from error
