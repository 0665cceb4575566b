"""Adapters beside a base, each at its own places."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from lmtasks.backends.native.multi_lora import MultiLoRALinear, is_routable
from lmtasks.testing import save_tiny_model


@pytest.mark.parametrize("shape", [(1, 9), (9,)], ids=["row", "flattened by the architecture"])
def test_each_adapter_answers_at_its_own_places(shape):
    torch.manual_seed(0)
    layer, routes = nn.Linear(6, 4), {"one": torch.tensor([0, 2]), "other": torch.tensor([5])}
    pairs = {name: (torch.randn(2, 6), torch.randn(4, 2)) for name in ("one", "other", "idle")}
    inputs = torch.randn(*shape, 6)
    with torch.no_grad():
        found = MultiLoRALinear(layer, pairs, routes)(inputs).reshape(9, 4)
        for place in range(9):
            expected = layer(inputs.reshape(9, 6)[place])
            name = next((name for name, places in routes.items() if place in places), None)
            if name:
                a, b = pairs[name]
                expected = expected + b @ a @ inputs.reshape(9, 6)[place]
            assert torch.allclose(found[place], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"target_modules": ["q_proj", "down_proj"]}, True),
        ({"target_modules": ["q_proj", "lm_head"]}, False),  # it is not given the whole row
        ({"target_modules": ["embed_tokens"]}, False),
        ({"target_modules": ["q_proj"], "use_dora": True}, False),
    ],
    ids=str,
)
def test_what_is_more_than_two_matrices_on_the_body_is_answered_alone(tmp_path, settings, expected):
    save_tiny_model(tmp_path)
    module = AutoModelForCausalLM.from_pretrained(tmp_path)
    model = get_peft_model(module, LoraConfig(r=2, **settings), adapter_name="adapter-x")
    assert is_routable(model, "adapter-x") == expected
