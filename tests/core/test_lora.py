"""Several LoRA adapters in one batch, each on its own tokens."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from lmtasks.backends.native.multi_lora import MultiLoRALinear, can_batch_adapter
from lmtasks.testing import save_tiny_model


@pytest.mark.parametrize("shape", [(1, 9), (9,)], ids=["row", "flattened by the architecture"])
def test_multi_lora_linear_adds_each_adapter_to_its_own_tokens(shape):
    torch.manual_seed(0)
    layer, adapter_tokens = nn.Linear(6, 4), {"one": torch.tensor([0, 2]), "other": torch.tensor([5])}
    matrices = {name: (torch.randn(2, 6), torch.randn(4, 2)) for name in ("one", "other", "idle")}
    inputs = torch.randn(*shape, 6)
    with torch.no_grad():
        outputs = MultiLoRALinear(layer, matrices, adapter_tokens)(inputs).reshape(9, 4)
        for token in range(9):
            expected = layer(inputs.reshape(9, 6)[token])
            name = next((name for name, tokens in adapter_tokens.items() if token in tokens), None)
            if name:
                a, b = matrices[name]
                expected = expected + b @ a @ inputs.reshape(9, 6)[token]
            assert torch.allclose(outputs[token], expected, atol=1e-6)


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
def test_can_batch_adapter_only_of_two_matrices_on_the_body(tmp_path, settings, expected):
    save_tiny_model(tmp_path)
    module = AutoModelForCausalLM.from_pretrained(tmp_path)
    model = get_peft_model(module, LoraConfig(r=2, **settings), adapter_name="adapter-x")
    assert can_batch_adapter(model, "adapter-x") == expected
