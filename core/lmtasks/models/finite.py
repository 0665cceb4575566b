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


class NotFiniteError(ArithmeticError):
    """A model's logits are NaN or infinite where they decide something."""


def check_finite(values: torch.Tensor) -> None:
    """Refuse values that are NaN or infinite.

    Args:
        values: what decides: the highest logit of each row, a sum of probabilities, a log-likelihood. Not all logits:
            models that mask a part of their vocabulary give it -inf.

    Raises:
        NotFiniteError: some of them are not finite.
    """
    if not values.isfinite().all():
        raise NotFiniteError
