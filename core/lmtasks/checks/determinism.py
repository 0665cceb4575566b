"""Reads the data of a task more than once, to see whether it is the same each time."""

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

SUBPROCESS_CODE = """
import sys
from lmtasks.checks.determinism import hash_datasets
print(*hash_datasets(*sys.argv[1:]))
"""
"""Prints the hashes of a task's data; its arguments are those of `hash_datasets`."""


def load_local_datasets(task: Task) -> list[Dataset]:
    """Return each data set that is not on the hub, in the evaluation split and in the splits for few-shot examples.

    Raises:
        DataError: it cannot be read; names the location.
    """
    local = [name for name, source in task.datasets.items() if not isinstance(source, HubDataset)]
    return [split for name in local for split in _splits(task, name)]


def reload_with_other_seed(task: Task, dataset: Dataset) -> Dataset:
    """Read a data set once more, with other random numbers; isolation restores the state of generators each time."""
    import numpy as np

    state, numpy_state = random.getstate(), np.random.get_state()
    random.seed("another")
    np.random.seed(random.getrandbits(32))
    try:
        return load_dataset(task, DataRequest(data=dataset.name, split=dataset.split))
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def hash_in_subprocess(plugin: str, task: str) -> list[str]:
    """Return what `hash_datasets` returns in another process, where Python's sets have another order.

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
    # -P: imports come from the folders of this process, and from the current one only if it is among them.
    command = [sys.executable, "-P", "-c", SUBPROCESS_CODE, plugin, task]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise DataError(f"its data cannot be read in another process: {done.stderr.strip().rpartition(chr(10))[2]}")
    return done.stdout.splitlines()[-1].split()  # a child process of the plugin may have printed lines before it


def hash_datasets(plugin: str, task: str) -> list[str]:
    """Return the SHA-256 of each data set of `load_local_datasets`, in its order."""
    registry = Registry()
    loaded = registry.task(plugin)[1] if is_plugin_file(plugin) else registry.load(plugin)
    return [dataset.sha256 for dataset in load_local_datasets(loaded.tasks[task])]


def _splits(task: Task, name: str) -> Iterator[Dataset]:
    evaluation = load_dataset(task, DataRequest(data=name))
    yield evaluation
    for split in FEWSHOT_SPLITS:
        if split != evaluation.split:
            try:
                yield load_dataset(task, DataRequest(data=name, split=split))
            except NoSplitError:
                continue
