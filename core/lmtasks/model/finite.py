"""Whether a model's weights and logits are numbers that can be used."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel


def not_finite(module: PreTrainedModel) -> str | None:
    """Return the name of the first weight that is NaN or infinite somewhere; None: there is none."""
    for name, weight in module.named_parameters():
        # One pass, and no copy: a sum that is finite says that all of it is; else it may only be too large.
        if not weight.detach().sum(dtype=torch.float32).isfinite() and not weight.detach().isfinite().all():
            return str(name)
    return None


def are_usable(logits: torch.Tensor) -> bool:
    """Return whether in each row of logits, shape [..., vocabulary], the highest is a finite number.

    Single logits may be -inf: models that mask a part of their vocabulary say so in that way.
    """
    return bool(logits.amax(-1).isfinite().all())
