"""Adapters on a model in memory, through peft."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import torch
from peft import LoraConfig, PeftModel, PeftModelForCausalLM, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PreTrainedModel

from lmtasks.errors import AdapterError, LmtasksError
from lmtasks.models.adapter_files import CONFIG, WEIGHTS, Adapter, adapter_name
from lmtasks.models.finite import check_finite
from lmtasks.models.info import ModelInfo
from lmtasks.models.target_modules import is_named, pattern, resolve

USED = (
    *("r", "lora_alpha", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "fan_in_fan_out"),
)
"""Settings of peft's that are passed on to it, patterns replaced by names."""
NO_EFFECT = (
    *("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "runtime_config", "lora_dropout", "megatron_core", "qalora_group_size"),
    # How the weights began, which are then replaced by those of the file.
    *("init_lora_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
)
"""Settings that change nothing of what a trained adapter computes. All others must be as peft has them by default: they
change more than the layers that an adapter is on, load code by its name, or cannot be mixed in a batch."""
CHANGING_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin that take a part of the base's weights away."""


def attach(module: PreTrainedModel | PeftModel, adapter: Adapter, info: ModelInfo) -> PeftModel:
    """Attach an adapter to a model, which may have others; it is frozen, and not yet the active one.

    Args:
        module: the base, or what an earlier call returned.
        adapter: is loaded from its folder.
        info: the base's identity.

    Raises:
        AdapterError: it belongs to another base, not all of its weights find their place, or it holds others than
            those of LoRA. The model is left as it was.
    """
    if adapter.record and not adapter.belongs_to(info):
        base = adapter.record.base
        raise AdapterError(
            f"{adapter.source}: this adapter was trained on {base.name} ({base.revision[:19]}...),"
            f" and the model is {info.name} ({info.revision[:19]}...): an adapter works with its own base alone"
        )
    name, had_adapters = adapter_name(adapter), isinstance(module, PeftModel)
    model = module
    try:
        weights = load_file(adapter.path / WEIGHTS)
        _check_kind(adapter, weights)
        config = _config(adapter, module, weights)
        if isinstance(model, PeftModel):
            model.add_adapter(name, config)
        else:
            model = PeftModelForCausalLM(model, config, adapter_name=name)
        model.load_adapter(adapter.path, name, torch_device=str(model.device))
    except LmtasksError:
        _detach(model, name, had_adapters=had_adapters)
        raise
    except Exception as error:  # what peft and safetensors raise about a file is of many families
        _detach(model, name, had_adapters=had_adapters)
        raise AdapterError(
            f"{adapter.source}: this adapter does not fit {info.name}: {' '.join(str(error).split())[:300]}"
        ) from error
    placed = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False).keys()
    absent, unexpected = sorted(placed - weights.keys()), sorted(weights.keys() - placed)
    if absent or unexpected:
        _detach(model, name, had_adapters=had_adapters)
        raise AdapterError(
            f"{adapter.source}: this adapter does not fit {info.name}: {len(absent)} of its weights are missing,"
            f" {len(unexpected)} find no place (first: {[*absent, *unexpected][0]})"
        )
    return model


def _check_kind(adapter: Adapter, weights: Mapping[str, torch.Tensor]) -> None:
    """Refuse an adapter that would change the base itself, which others use too."""
    config = adapter.config
    not_lora = next((name for name in weights if "lora_" not in name), None)
    if not_lora:
        raise AdapterError(
            f"{adapter.source}: holds weights beside those of LoRA (first: {not_lora}), which cannot be switched off"
            " for others; merge it into its base with peft, and use that as the model"
        )
    other = next((name for name, weight in weights.items() if not weight.is_floating_point()), None)
    if other:
        raise AdapterError(
            f"{adapter.source}: its weight {other} is of type {str(weights[other].dtype).removeprefix('torch.')};"
            " expected floating-point numbers"
        )
    defaults = {each.name: each.default for each in fields(LoraConfig)}
    named = [
        name
        for name, default in defaults.items()
        if name not in (*USED, *NO_EFFECT) and config.get(name) and config[name] != default
    ]
    if str(config.get("init_lora_weights")).lower().startswith(CHANGING_THE_BASE):
        named.append("init_lora_weights")
    if named:
        raise AdapterError(
            f"{adapter.source}: its {named[0]} is not supported; merge it into its base with peft, and use that as the"
            " model"
        )


def _config(adapter: Adapter, module: PreTrainedModel | PeftModel, weights: Mapping[str, torch.Tensor]) -> LoraConfig:
    """Return peft's config of an adapter, in which modules stand by their names.

    Raises:
        AdapterError: a pattern cannot be used, or a rank is not that of the weights.
    """
    where = str(adapter.path / CONFIG)
    targets = resolve(adapter.config, _module_names(module), where=where)
    # Before any memory is taken for them.
    stored = {len(weight) for name, weight in weights.items() if "lora_A" in name or "lora_embedding_A" in name}
    wrong = sorted(targets.ranks_in_use(adapter.rank) - stored)
    if wrong:
        raise AdapterError(
            f"{where}: says rank {wrong[0]}, and {WEIGHTS} holds matrices of rank"
            f" {', '.join(map(str, sorted(stored))) or 'none'}"
        )
    return LoraConfig(
        task_type="CAUSAL_LM",
        inference_mode=True,
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type] # peft takes any number
        target_modules=targets.modules,
        exclude_modules=targets.exclude,
        layers_to_transform=targets.layers,
        rank_pattern=pattern(targets.ranks),
        alpha_pattern=pattern(targets.alphas),
        use_rslora=bool(adapter.config.get("use_rslora")),
        use_dora=bool(adapter.config.get("use_dora")),
        fan_in_fan_out=bool(adapter.config.get("fan_in_fan_out")),
    )


def _module_names(module: PreTrainedModel | PeftModel) -> list[str]:
    """Return the names of all modules of the base, without those of adapters that are on it."""
    base = module.get_base_model() if isinstance(module, PeftModel) else module
    within = tuple(f"{name}." for name, layer in base.named_modules() if hasattr(layer, "lora_A"))
    return [name for name, _ in base.named_modules() if name and not name.startswith(within)]


def _detach(model: PreTrainedModel | PeftModel, name: str, *, had_adapters: bool) -> None:
    """Remove an adapter that does not fit, and leave the model as it was before it was attached."""
    if not isinstance(model, PeftModel):
        return
    if not had_adapters:
        model.unload()
    elif name in model.peft_config:
        model.delete_adapter(name)


@torch.no_grad()
def max_logit_change(model: PeftModel, adapter: Adapter, token_ids: list[int]) -> float:
    """Return the largest difference of logits behind some tokens, between the model with an adapter and without it.

    0 means that the adapter changes nothing; a value that is not finite, that logits are NaN or infinite with it.

    Raises:
        NotFiniteError: they are NaN or infinite without it.
    """
    ids = torch.tensor([token_ids], device=next(model.parameters()).device)
    model.set_adapter(adapter_name(adapter), inference_mode=True)
    changed = model(input_ids=ids, use_cache=False).logits
    with model.disable_adapter():
        plain = model(input_ids=ids, use_cache=False).logits
    check_finite(plain.amax(-1))
    # Equal ones may be -inf: of tokens that a model masks.
    return float(torch.where(changed == plain, 0, changed.float() - plain.float()).abs().max())


def changes_embeddings(module: PreTrainedModel, adapter: Adapter) -> bool:
    """Return whether an adapter is for the input or the output embeddings of a base.

    Raises:
        AdapterError: a pattern of its config cannot be used.
    """
    targets = resolve(adapter.config, _module_names(module), where=str(adapter.path / CONFIG)).modules
    embeddings = (module.get_input_embeddings(), module.get_output_embeddings())
    names = [name for name, layer in module.named_modules() if layer in embeddings]
    return not isinstance(targets, str) and any(is_named(name, targets) for name in names)


def merged(model: PeftModel, adapter: Adapter) -> PreTrainedModel:
    """Return the base with an adapter added to its weights; peft's layers are gone."""
    return model.merge_and_unload(adapter_names=[adapter_name(adapter)])
