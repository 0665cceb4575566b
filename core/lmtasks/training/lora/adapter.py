"""The base model while an adapter is trained on it: put on, taken off, and left as it was."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.helpers import disable_input_dtype_casting
from transformers import set_seed
from transformers.pytorch_utils import Conv1D

from lmtasks.errors import TrainingError, UsageError, option
from lmtasks.kernels.packed_attention import packed_attention
from lmtasks.models.loading import LoadedModel
from lmtasks.models.quiet import quiet
from lmtasks.options import TrainOptions

ALL = ("all-linear",)


@contextmanager
def lora_attached(loaded: LoadedModel, options: TrainOptions) -> Iterator[PeftModel]:
    """Put a fresh adapter on the base model, and take it off again.

    Raises:
        UsageError: the model has no layers of the names that were asked for, or none that is as large as the rank.
    """
    targets = options.target_modules
    if targets != ALL:
        _check_targets(loaded, targets)
    _check_rank(loaded, targets, options.rank)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=options.rank,
        lora_alpha=options.scale,  # type: ignore[arg-type] # peft takes any number
        lora_dropout=options.dropout,
        target_modules=targets[0] if targets == ALL else list(targets),
        use_rslora=options.rslora,
        use_dora=options.dora,
        revision=loaded.info.revision if loaded.info.source == "hub" else None,
    )
    with _own_randomness():
        set_seed(options.seed)
        with quiet():
            model = get_peft_model(loaded.module, config)
        # As the user knows the base, not where this machine keeps it.
        model.peft_config["default"].base_model_name_or_path = loaded.info.name
        # Autocast casts what each layer computes; peft's own cast to float32 before it would be undone, and kept.
        autocast = loaded.module.dtype == torch.bfloat16
        try:
            with disable_input_dtype_casting(model, active=autocast):
                yield model
        finally:
            with quiet():
                model.unload()
            loaded.module.eval()
            loaded.module.zero_grad(set_to_none=True)
            gc.collect()


def _check_targets(loaded: LoadedModel, targets: Sequence[str]) -> None:
    """Refuse names of layers that are not there: peft does so only if none of them is."""
    linear = _linear_layers(loaded)
    for target in targets:
        if not any(_is_named(name, target) for name in linear):
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise UsageError(
                f'target_modules: {loaded.info.name} has no such layers as "{target}"; it has {", ".join(known)}'
            )


def _check_rank(loaded: LoadedModel, targets: Sequence[str], rank: int) -> None:
    """Refuse a rank beyond any layer's dimension before memory for it is allocated."""
    head = loaded.module.get_output_embeddings()
    sizes = [
        max(layer.weight.shape)
        for name, layer in _linear_layers(loaded).items()
        if (layer is not head if tuple(targets) == ALL else any(_is_named(name, target) for target in targets))
    ]
    if sizes and rank > max(sizes):
        raise UsageError(
            f"rank must be at most {max(sizes)}, the largest dimension of the layers of {loaded.info.name} that get an"
            f" adapter, not {rank}"
        )


def _linear_layers(loaded: LoadedModel) -> dict[str, torch.nn.Linear | Conv1D]:
    layers = loaded.module.named_modules()
    return {name: layer for name, layer in layers if isinstance(layer, (torch.nn.Linear, Conv1D))}


def _is_named(layer: str, target: str) -> bool:
    return layer == target or layer.endswith(f".{target}")


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Leave the random state of python, numpy and torch as it was: a training seeds all of them."""
    python, others = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(others)


@contextmanager
def report_oom() -> Iterator[None]:
    """Say in one line that a step needs more memory than a GPU has.

    Raises:
        TrainingError: it does.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"a step needs more memory than the device has; use a higher {option('gradient_accumulation')},"
            f" {option('gradient_checkpointing', True)} or a smaller {option('max_length')}"
        ) from error


@contextmanager
def packed_attention_if(loaded: LoadedModel, *, packed: bool) -> Iterator[None]:
    """Let the base attend within the sequences of a row, if they are packed."""
    if packed:
        with packed_attention(loaded.module):
            yield
    else:
        yield
