"""What a training does to the weights."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from training_setup import (
    ARCHITECTURES,
    WEIGHTS,
    adapter_weights,
    distance,
    learn,
    loaded_module,
    mean_loss,
    one_line,
    ready,
)

from lmtasks.errors import UsageError
from lmtasks.testing import save_tiny_model


@pytest.mark.parametrize("kind", [{}, {"rslora": True}, {"dora": True}, {"dropout": 0.5}], ids=str)
def test_a_fresh_adapter_changes_nothing_and_losses_are_means_over_the_tokens_of_answers(
    tmp_path, tiny_folder, data, kind
):
    planned = ready(tiny_folder, data, max_steps=1, batch_size=18, validation=6, **kind)
    history = learn(planned, tmp_path / "training").record.history
    # The base's own losses, without an adapter.
    module = planned.loaded.module
    assert history[0].step == 0
    assert history[0].eval_loss == pytest.approx(mean_loss(module, planned.setup.validation.examples), abs=1e-5)
    if "dropout" not in kind:
        assert history[1].loss == pytest.approx(mean_loss(module, planned.setup.train.examples), abs=1e-3)


def test_training_moves_the_weights_of_the_adapter_and_leaves_the_base_as_it_was(tmp_path, tiny_folder, data):
    planned = ready(tiny_folder, data, max_steps=2, gradient_checkpointing=True)
    module = planned.loaded.module
    pristine = loaded_module(tiny_folder)
    weights = load_file(learn(planned, tmp_path / "training").checkpoint / WEIGHTS)
    assert module.state_dict().keys() == pristine.state_dict().keys()
    assert all(torch.equal(weight, module.state_dict()[name]) for name, weight in pristine.state_dict().items())
    assert [type(layer) for layer in module.modules()] == [type(layer) for layer in pristine.modules()]
    assert module.config._attn_implementation == pristine.config._attn_implementation
    assert not module.training
    assert all(weight.abs().max() > 0 for weight in weights.values())


def test_a_step_is_the_same_in_however_many_parts(tmp_path, tiny_folder, data):
    # Plain steps down an unclipped gradient: any other scale or weighting of parts would show.
    how = {"max_steps": 2, "optimizer": "sgd", "learning_rate": 0.02, "max_grad_norm": 0.0}
    results = {}
    for parts in (1, 2, 8, 16):  # of 8 examples
        planned = ready(tiny_folder, data, gradient_accumulation=parts, **how)
        done = learn(planned, tmp_path / str(parts))
        losses = [entry.loss for entry in done.record.history if entry.loss is not None]
        results[parts] = load_file(done.checkpoint / WEIGHTS), losses
    weights, losses = results.pop(1)
    assert max(float(weight.abs().max()) for name, weight in weights.items() if "lora_B" in name) > 1e-3
    for others, other_losses in results.values():
        assert distance(weights, others) < 1e-5
        assert other_losses == pytest.approx(losses, abs=1e-4)


@pytest.mark.parametrize("set_by_a_launcher", ["bf16", "fp16"])
def test_a_launcher_does_not_change_the_dtype(tmp_path, tiny_folder, data, monkeypatch, set_by_a_launcher):
    without = adapter_weights(tiny_folder, data, tmp_path / "without", max_steps=2)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", set_by_a_launcher)
    assert distance(without, adapter_weights(tiny_folder, data, tmp_path / "with", max_steps=2)) == 0


def test_gradient_checkpointing_gives_the_same_weights(tmp_path, tiny_folder, data):
    how = {"max_steps": 3, "dropout": 0.1}
    kept = adapter_weights(tiny_folder, data, tmp_path / "kept", **how)
    again = adapter_weights(tiny_folder, data, tmp_path / "again", gradient_checkpointing=True, **how)
    assert distance(kept, again) < 1e-6


def test_a_seed_gives_the_same_weights_to_the_bit_and_another_seed_others(tmp_path, tiny_folder, data):
    how = {"max_steps": 3, "dropout": 0.1}
    first = adapter_weights(tiny_folder, data, tmp_path / "first", seed=1, **how)
    again = adapter_weights(tiny_folder, data, tmp_path / "again", seed=1, **how)
    other = adapter_weights(tiny_folder, data, tmp_path / "other", seed=2, **how)
    assert distance(first, again) == 0
    # By more than these steps can move a weight: the first weights are others.
    assert distance(first, other) > 0.05


@pytest.mark.parametrize("architecture", ARCHITECTURES[1:])
def test_other_architectures_learn_too(tmp_path, data, architecture):
    save_tiny_model(tmp_path / "model", architecture)
    planned = ready(tmp_path / "model", data, max_steps=4, learning_rate=1e-2, batch_size=24)
    assert planned.setup.packed
    history = learn(planned, tmp_path / "training").record.history
    assert history[-1].loss < history[0].loss - 0.1


def test_an_adapter_of_a_base_in_bfloat16_is_in_float32(tmp_path, tiny_folder, data):
    planned = ready(tiny_folder, data, max_steps=2, validation=4, dtype="bfloat16")
    assert planned.loaded.module.dtype == torch.bfloat16
    weights = load_file(learn(planned, tmp_path).checkpoint / WEIGHTS)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert all(weight.abs().max() > 0 for weight in weights.values())


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "rmsprop", "adafactor", "sgd"])
def test_every_optimizer_moves_weights(tmp_path, tiny_folder, data, optimizer):
    weights = adapter_weights(tiny_folder, data, tmp_path, max_steps=2, warmup=0.0, optimizer=optimizer)
    assert all(weight.isfinite().all() and weight.abs().max() > 0 for weight in weights.values())


@pytest.mark.parametrize(
    ("schedule", "falls"),
    [("cosine", True), ("linear", True), ("constant", False), ("polynomial", True), ("inverse_sqrt", True)],
)
def test_every_schedule_warms_up_and_does_what_it_is_called(tmp_path, tiny_folder, data, schedule, falls):
    how = {"max_steps": 8, "warmup": 2.0, "learning_rate": 0.125, "schedule": schedule, "batch_size": 2}
    done = learn(ready(tiny_folder, data, **how), tmp_path)
    rates = [entry.learning_rate for entry in done.record.history]
    assert len(rates) == 8
    assert rates[0] < rates[1]
    assert max(rates) == 0.125
    assert (rates[-1] < 0.125) == falls
    assert max(float(weight.abs().max()) for name, weight in load_file(done.checkpoint / WEIGHTS).items()) > 0


@pytest.mark.parametrize(
    ("kind", "config", "part"),
    [
        ({"rslora": True, "rank": 4}, {"use_rslora": True, "r": 4, "lora_alpha": 8}, "lora_A"),
        ({"dora": True}, {"use_dora": True}, "lora_magnitude_vector"),
        ({"target_modules": ["q_proj", "up_proj"], "alpha": 3}, {"lora_alpha": 3}, "q_proj"),
    ],
    ids=str,
)
def test_kinds_of_lora_and_layers_are_as_asked_for(tmp_path, tiny_folder, data, kind, config, part):
    done = learn(ready(tiny_folder, data, max_steps=1, **kind), tmp_path)
    written = json.loads((done.checkpoint / "adapter_config.json").read_text())
    assert {name: written[name] for name in config} == config
    weights = load_file(done.checkpoint / WEIGHTS)
    assert any(part in name for name in weights)
    if "target_modules" in kind:
        layers = {name.split(".lora_")[0].rpartition(".")[2] for name in weights}
        assert layers == set(kind["target_modules"])
    assert done.record.trainable_weights == sum(weight.numel() for weight in weights.values())


@pytest.mark.parametrize(("architecture", "layer"), [("llama", "q_proj"), ("gpt2", "c_attn")])
@pytest.mark.parametrize("also", [[], ["there is"]], ids=["alone", "beside one that is there"])
def test_an_unknown_layer_is_told_with_those_that_there_are(tmp_path, data, architecture, layer, also):
    save_tiny_model(tmp_path, architecture)
    with pytest.raises(UsageError, match="no layers named") as error:
        ready(tmp_path, data, target_modules=["q_porj", *([layer] if also else [])])
    said = one_line(error)
    assert "q_porj" in said
    assert layer in said.rpartition("it has")[2]
