"""Private interfaces of transformers' models and files, and of torch's modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn


def set_parameter(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Give a shallow copy of a module a parameter of its own, and leave the module that it was copied from as it is.

    Replaces `torch.nn.Module._parameters`, the table that a shallow copy shares with its original.
    """
    module._parameters = {**module._parameters, name: parameter}


def hub_file(repository: str, name: str, revision: str | None) -> Path | None:
    """Return a file of a model of the hub, downloaded if the cache does not have it.

    Passes private keywords to `transformers.utils.cached_file`.

    Returns:
        None: the model has no file of that name, or the hub does not give it out or cannot be reached.
    """
    from transformers.utils import cached_file

    path = cached_file(
        repository,
        name,
        revision=revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else Path(path)


@contextmanager
def no_gguf_progress_bar() -> Iterator[None]:
    """Hide the progress bar of reading a GGUF file, which ignores transformers' own switch.

    Replaces `transformers.modeling_gguf_pytorch_utils.tqdm`.
    """
    from transformers import modeling_gguf_pytorch_utils

    bar = getattr(modeling_gguf_pytorch_utils, "tqdm", None)
    if bar is not None:
        modeling_gguf_pytorch_utils.tqdm = lambda tensors, **_: tensors
    try:
        yield
    finally:
        if bar is not None:
            modeling_gguf_pytorch_utils.tqdm = bar
