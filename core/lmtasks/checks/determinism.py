"""The data of a task read more than once, to see if it is the same each time."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator

from lmtasks.data import FEWSHOT_SPLITS, DataRequest, Dataset, NoSplitError, load_dataset
from lmtasks.errors import DataError
from lmtasks.plugins import Registry, is_plugin_file
from lmtasks.task import HubDataset, Task

ELSEWHERE = """
import sys
from lmtasks.checks.determinism import hashes
print(*hashes(*sys.argv[1:]))
"""
"""Of a process that reads the data of a task: its plugin or file, and its name."""


def read_local(task: Task) -> list[Dataset]:
    """Read each set that is no hub set, in the split that is scored and in those that are taught.

    Raises:
        DataError: it cannot be read; names the place.
    """
    local = [name for name, source in task.datasets.items() if not isinstance(source, HubDataset)]
    return [split for name in local for split in _splits(task, name)]


def read_again(task: Task, dataset: Dataset) -> Dataset:
    """Read a set once more, with other random numbers: within a process those are put back each time."""
    import numpy as np

    kept, kept_numpy = random.getstate(), np.random.get_state()
    random.seed("another")
    np.random.seed(random.getrandbits(32))
    try:
        return load_dataset(task, DataRequest(data=dataset.name, split=dataset.split))
    finally:
        random.setstate(kept)
        np.random.set_state(kept_numpy)


def read_elsewhere(plugin: str, task: str) -> list[str]:
    """Return what `hashes` returns in another process, in which sets have another order.

    Args:
        plugin: its name or file.
        task: its name.

    Raises:
        DataError: the data cannot be read there.
    """
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2",
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
    }
    # -P: imports come from where this process has them, and from the current folder only if it is among those.
    command = [sys.executable, "-P", "-c", ELSEWHERE, plugin, task]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise DataError(f"its data cannot be read in another process: {done.stderr.strip().rpartition(chr(10))[2]}")
    return done.stdout.splitlines()[-1].split()  # what else a child of the plugin may have printed comes before


def hashes(plugin: str, task: str) -> list[str]:
    """Return the hashes of what `read_local` reads, in its order."""
    registry = Registry()
    found = registry.task(plugin)[1] if is_plugin_file(plugin) else registry.load(plugin)
    return [dataset.sha256 for dataset in read_local(found.tasks[task])]


def _splits(task: Task, name: str) -> Iterator[Dataset]:
    scored = load_dataset(task, DataRequest(data=name))
    yield scored
    for split in FEWSHOT_SPLITS:
        if split != scored.split:
            try:
                yield load_dataset(task, DataRequest(data=name, split=split))
            except NoSplitError:
                continue
