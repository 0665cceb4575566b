"""Adapters on a model in memory, through peft."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from peft import LoraConfig, PeftModel, PeftModelForCausalLM, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from lmtasks.errors import AdapterError
from lmtasks.model.adapter import WEIGHTS, Adapter, adapter_name
from lmtasks.model.info import ModelInfo

NOT_SUPPORTED = ("modules_to_save", "layer_replication", "lora_bias", "target_parameters", "alora_invocation_tokens")
"""Settings of peft's that change more than the layers that an adapter is on, or that batches cannot mix."""


def attach(module: PreTrainedModel | PeftModel, adapter: Adapter, info: ModelInfo) -> PeftModel:
    """Put an adapter on a model, beside those that are on it; it is frozen, and not yet the active one.

    Args:
        module: the base, or what an earlier call returned.
        adapter: is loaded from its folder.
        info: of the base.

    Raises:
        AdapterError: it belongs to another base, not all of its weights find their place, or it holds others than
            those of LoRA. The model is left as it was.
    """
    if not adapter.belongs_to(info):
        base = adapter.record["base"] if adapter.record else {}
        raise AdapterError(
            f"{adapter.source}: this adapter was trained on {base.get('name')} ({str(base.get('revision'))[:19]}...),"
            f" and the model is {info.name} ({info.revision[:19]}...): an adapter works with its own base alone"
        )
    name, beside = adapter_name(adapter), isinstance(module, PeftModel)
    model = module
    try:
        weights = load_file(adapter.path / WEIGHTS)
        _check_kind(adapter, weights)
        config = LoraConfig.from_pretrained(str(adapter.path))
        config.inference_mode = True
        if isinstance(model, PeftModel):
            model.add_adapter(name, config)
        else:
            model = PeftModelForCausalLM(model, config, adapter_name=name)
        model.load_adapter(adapter.path, name, torch_device=str(model.device))
    except (ValueError, RuntimeError, KeyError, TypeError, OSError, SafetensorError) as error:
        _take_off(model, name, beside=beside)
        raise AdapterError(
            f"{adapter.source}: this adapter does not fit {info.name}: {' '.join(str(error).split())[:300]}"
        ) from error
    placed = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False).keys()
    absent, astray = sorted(placed - weights.keys()), sorted(weights.keys() - placed)
    if absent or astray:
        _take_off(model, name, beside=beside)
        raise AdapterError(
            f"{adapter.source}: this adapter does not fit {info.name}: {len(absent)} of its weights are missing,"
            f" {len(astray)} find no place (first: {[*absent, *astray][0]})"
        )
    return model


def _check_kind(adapter: Adapter, weights: Mapping[str, torch.Tensor]) -> None:
    """Refuse an adapter that would change the base itself, which others use too."""
    config = adapter.config
    beside = next((name for name in weights if "lora_" not in name), None)
    if beside:
        raise AdapterError(
            f"{adapter.source}: holds weights beside those of LoRA (first: {beside}), which cannot be switched off for"
            " others; merge it into its base with peft, and use that as the model"
        )
    named = [name for name in NOT_SUPPORTED if config.get(name)]
    if config.get("bias", "none") != "none":
        named.append("bias")
    # Those change the weights of the base when they begin.
    if str(config.get("init_lora_weights")).startswith(("pissa", "olora", "corda", "loftq")):
        named.append("init_lora_weights")
    if named:
        raise AdapterError(
            f"{adapter.source}: its {named[0]} is not supported; merge it into its base with peft, and use that as the"
            " model"
        )


def _take_off(model: PreTrainedModel | PeftModel, name: str, *, beside: bool) -> None:
    """Leave a model as it was before an adapter that does not fit was put on it."""
    if not isinstance(model, PeftModel):
        return
    if not beside:
        model.unload()
    elif name in model.peft_config:
        model.delete_adapter(name)


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
