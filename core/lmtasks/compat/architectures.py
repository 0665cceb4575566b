"""Private attributes of transformers' models and configs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def set_parameter(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Give a shallow copy of a module a parameter of its own, and leave the module that it was copied from as it is.

    Replaces `torch.nn.Module._parameters`, the table that a shallow copy shares with its original.
    """
    module._parameters = {**module._parameters, name: parameter}


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
