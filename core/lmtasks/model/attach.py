"""Adapters on a model in memory, through peft."""

from __future__ import annotations

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from lmtasks.errors import AdapterError
from lmtasks.model.adapter import WEIGHTS, Adapter
from lmtasks.model.info import ModelInfo

PREFIX = "adapter-"
"""Of the names that peft knows adapters by; peft finds weights by name, so that it must not be part of "lora_"."""


def adapter_name(adapter: Adapter | str) -> str:
    """Return what peft calls an adapter, by its hash."""
    return f"{PREFIX}{(adapter if isinstance(adapter, str) else adapter.sha256)[:16]}"


def attach(module: PreTrainedModel | PeftModel, adapter: Adapter, info: ModelInfo) -> PeftModel:
    """Put an adapter on a model, beside those that are on it; it is frozen, and not yet the active one.

    Args:
        module: the base, or what an earlier call returned.
        adapter: is loaded from its folder.
        info: of the base.

    Raises:
        AdapterError: it belongs to another base, or not all of its weights find their place.
    """
    if not adapter.belongs_to(info):
        base = adapter.record["base"] if adapter.record else {}
        raise AdapterError(
            f"{adapter.source}: this adapter was trained on {base.get('name')} ({str(base.get('revision'))[:19]}...),"
            f" and the model is {info.name} ({info.revision[:19]}...): an adapter works with its own base alone"
        )
    name = adapter_name(adapter)
    device = str(next(module.parameters()).device)
    try:
        if isinstance(module, PeftModel):
            model = module
            result = model.load_adapter(adapter.path, name, torch_device=device)
            absent, astray = result.missing_keys, result.unexpected_keys
        else:
            model = PeftModel.from_pretrained(module, adapter.path, adapter_name=name, torch_device=device)
            absent, astray = [], []
        weights = load_file(adapter.path / WEIGHTS)
    except (ValueError, RuntimeError, KeyError, OSError, SafetensorError) as error:
        raise AdapterError(
            f"{adapter.source}: this adapter does not fit {info.name}: {' '.join(str(error).split())[:300]}"
        ) from error
    placed = set(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))
    own = {key for key in weights if "lora_" in key}
    absent = sorted({*absent, *(key for key in placed - own if "lora_" in key)})
    astray = sorted({*astray, *(own - placed)})
    if absent or astray:
        raise AdapterError(
            f"{adapter.source}: this adapter does not fit {info.name}: {len(absent)} weights are missing,"
            f" {len(astray)} find no place (first: {[*absent, *astray][0]})"
        )
    return model


@torch.no_grad()
def effect(model: PeftModel, adapter: Adapter, token_ids: list[int]) -> float:
    """Return by how much an adapter changes what a model says: the largest difference of logits behind some tokens.

    0 means that it changes nothing.
    """
    ids = torch.tensor([token_ids], device=next(model.parameters()).device)
    model.set_adapter(adapter_name(adapter), inference_mode=True)
    changed = model(input_ids=ids, use_cache=False).logits
    with model.disable_adapter():
        plain = model(input_ids=ids, use_cache=False).logits
    return float((changed.float() - plain.float()).abs().max())


def merged(model: PeftModel, adapter: Adapter) -> PreTrainedModel:
    """Return the base with an adapter added to its weights; peft's layers are gone."""
    return model.merge_and_unload(adapter_names=[adapter_name(adapter)])
