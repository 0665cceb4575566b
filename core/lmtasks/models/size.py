"""Whether a model's weights are those that its config describes: before they are loaded, and after."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from lmtasks.errors import ModelError

MAX_BUFFERS = 2**26
"""Numbers beyond those in the files of weights that a model may take memory for: masks, positions."""


def check_size(config: PreTrainedConfig, there: int, *, where: str, trust_remote_code: bool = False) -> None:
    """Refuse a config that describes a far larger model than there are weights for.

    transformers takes memory for weights that lack, and fills them with random numbers. A model that lacks a few is
    refused by their names when it is loaded; one that lacks terabytes must not be loaded at all.

    Args:
        config: the model's config.
        there: number of weights in the model's files.
        where: the file that the config is from, for messages.
        trust_remote_code: whether code that comes with the model may run.

    Raises:
        ModelError: the model is more than twice as large.
    """
    if getattr(config, "quantization_config", None) is not None:
        return  # a number in the file holds several weights
    with torch.device("meta"):
        described = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    needed = sum(weight.numel() for weight in [*described.parameters(), *described.buffers()])
    if needed > 2 * there + MAX_BUFFERS:
        raise ModelError(
            f"{where}: describes a model of {needed:,} weights, and there are {there:,}; config and weights do not"
            " belong together"
        )


def refuse_absent(name: str, loading: Mapping[str, Collection[object]]) -> None:
    """Refuse a model for whose weights transformers took random numbers.

    Args:
        name: the model's name.
        loading: the loading info that transformers returns with the model.

    Raises:
        ModelError: weights lack, or have another shape.
    """
    absent = sorted(str(weight) for weight in {*loading["missing_keys"], *loading["mismatched_keys"]})
    if absent:
        raise ModelError(
            f'model "{name}" lacks {len(absent)} of its weights, or has them in another shape (first: {absent[0]});'
            " is it a causal language model, and complete?"
        )
