"""Sequences packed in one row, and micro-batches."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from training_setup import ARCHITECTURES, WEIGHTS, adapter_weights, distance, learn, loaded_module, ready
from transformers import AutoConfig, AutoModelForCausalLM

from lmtasks.kernels.packed_attention import packed_attention
from lmtasks.testing import save_tiny_model
from lmtasks.training.common.dataset import TrainingExample
from lmtasks.training.common.packing import answer_losses, collate, supports_packing


def random_sequences(*sizes: tuple[int, int]) -> list[TrainingExample]:
    from array import array

    drawn = torch.Generator().manual_seed(1)
    return [
        TrainingExample(array("i", torch.randint(3, 250, (length,), generator=drawn).tolist()), answer, False)
        for length, answer in sizes
    ]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_sequences_in_one_row_have_the_losses_that_each_has_alone(tmp_path, architecture):
    save_tiny_model(tmp_path, architecture)
    module = loaded_module(tmp_path)
    items = random_sequences((40, 9), (5, 2), (70, 50), (17, 16), (33, 1))
    alone = []
    for item in items:
        ids = torch.tensor([list(item.token_ids)])
        losses = functional.cross_entropy(module(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
        alone.append(losses[-item.target_tokens :])
    before = module.config._attn_implementation
    with packed_attention(module):
        for supports_logits_to_keep in (True, False):
            batch = collate(items, packed=True, pad_id=0, weight=1.0)
            packed = answer_losses(module, batch, supports_logits_to_keep=supports_logits_to_keep)
            assert torch.allclose(packed, torch.cat(alone), rtol=0, atol=1e-4)
        changed = list(items)
        changed[2] = TrainingExample(items[2].token_ids[::-1], items[2].target_tokens, False)
        batch = collate(changed, packed=True, pad_id=0, weight=1.0)
        others = answer_losses(module, batch, supports_logits_to_keep=True).split(
            [item.target_tokens for item in items]
        )
    for place, (losses, own) in enumerate(
        zip(others, packed.split([item.target_tokens for item in items]), strict=True)
    ):
        difference = float((losses - own).abs().max())
        assert difference > 1e-2 if place == 2 else difference < 1e-6
    assert module.config._attn_implementation == before
    assert supports_packing(module, supports_logits_to_keep=True)
    padded = answer_losses(module, collate(items, packed=False, pad_id=0, weight=1.0), supports_logits_to_keep=True)
    assert torch.allclose(padded, torch.cat(alone), rtol=0, atol=1e-4)


def test_what_carries_state_from_token_to_token_is_never_packed():
    common = {"vocab_size": 256, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    module = AutoModelForCausalLM.from_config(AutoConfig.for_model("mamba", **common)).eval()
    assert not supports_packing(module, supports_logits_to_keep=False)


def test_without_packing_the_same_is_learned(tmp_path, tiny_folder, data, monkeypatch):
    how = {"max_steps": 2, "optimizer": "sgd", "learning_rate": 0.01, "max_grad_norm": 0.0}
    packed = adapter_weights(tiny_folder, data, tmp_path / "packed", **how)
    monkeypatch.setattr("lmtasks.training.lora.prepare.supports_packing", lambda *_, **__: False)
    planned = ready(tiny_folder, data, **how)
    assert not planned.setup.packed
    padded = load_file(learn(planned, tmp_path / "padded").checkpoint / WEIGHTS)
    assert distance(packed, padded) < 1e-5
