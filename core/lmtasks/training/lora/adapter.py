"""A LoRA adapter on the base model while it is trained: attached, saved, checked and detached."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.helpers import disable_input_dtype_casting
from safetensors import safe_open
from transformers import set_seed
from transformers.pytorch_utils import Conv1D

from lmtasks.errors import UsageError, option
from lmtasks.models.adapter_files import WEIGHTS
from lmtasks.models.loading import LoadedModel
from lmtasks.models.quiet import quiet
from lmtasks.options import TrainOptions
from lmtasks.training.common.contexts import preserve_rng

ALL_LINEAR = ("all-linear",)


@contextmanager
def lora_attached(loaded: LoadedModel, options: TrainOptions) -> Iterator[PeftModel]:
    """Attach a new adapter to the base model, and detach it at the end.

    Raises:
        UsageError: the model has no layers of the given names, or none that is as large as the rank.
    """
    targets = options.target_modules
    if targets != ALL_LINEAR:
        _check_targets(loaded, targets)
    _check_rank(loaded, targets, options.rank)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=options.rank,
        lora_alpha=options.scale,  # type: ignore[arg-type] # peft takes any number
        lora_dropout=options.dropout,
        target_modules=targets[0] if targets == ALL_LINEAR else list(targets),
        use_rslora=options.rslora,
        use_dora=options.dora,
        revision=loaded.info.revision if loaded.info.source == "hub" else None,
    )
    with preserve_rng():
        set_seed(options.seed)
        with quiet():
            model = get_peft_model(loaded.module, config)
        # The name that the user gave, not the folder in which this machine keeps the base.
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
    """Refuse names of layers that do not exist: peft does so only if none of them does."""
    linear = _linear_layers(loaded)
    for target in targets:
        if not any(_is_named(name, target) for name in linear):
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise UsageError(
                f'{option("target_modules")}: {loaded.info.name} has no layers named "{target}"; it has'
                f" {', '.join(known)}"
            )


def _check_rank(loaded: LoadedModel, targets: Sequence[str], rank: int) -> None:
    """Refuse a rank beyond any layer's dimension before memory for it is allocated."""
    head = loaded.module.get_output_embeddings()
    sizes = [
        max(layer.weight.shape)
        for name, layer in _linear_layers(loaded).items()
        if (layer is not head if tuple(targets) == ALL_LINEAR else any(_is_named(name, target) for target in targets))
    ]
    if sizes and rank > max(sizes):
        raise UsageError(
            f"{option('rank')} must be at most {max(sizes)}, the largest dimension of the layers of {loaded.info.name}"
            f" that get an adapter, not {rank}"
        )


def _linear_layers(loaded: LoadedModel) -> dict[str, torch.nn.Linear | Conv1D]:
    layers = loaded.module.named_modules()
    return {name: layer for name, layer in layers if isinstance(layer, (torch.nn.Linear, Conv1D))}


def _is_named(layer: str, target: str) -> bool:
    return layer == target or layer.endswith(f".{target}")


def save_adapter(model: torch.nn.Module, folder: Path) -> None:
    """Write an adapter's config and weights, without the base's, as peft does."""
    model.save_pretrained(folder, save_embedding_layers=False)  # type: ignore[operator]


def check_adapter_weights(model: torch.nn.Module, folder: Path) -> None:
    """Refuse a checkpoint that lacks weights of the adapter: peft would only warn, and keep newly initialized ones.

    Raises:
        ValueError: names a weight that is missing, unknown or of another shape.
    """
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    expected = {name: list(weight.shape) for name, weight in state.items()}
    with safe_open(folder / WEIGHTS, framework="pt") as weights:
        shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118 - no mapping
    for name in sorted({*expected, *shapes}):
        if expected.get(name) != shapes.get(name):
            raise ValueError(
                f"{WEIGHTS}: {name} is expected in shape {expected.get(name)}, and the file has {shapes.get(name)}"
            )
