"""The test whether an architecture computes the same with an attention function of ours as with its own.

Architectures that carry state from token to token, or attend in a way of their own, do not. The native engine and
packed training both ask here, with one table of tolerances.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel

from lmtasks.kernels.torch_private import supports_attention_functions

log = logging.getLogger("lmtasks.kernels")
LENGTHS = 21, 9
"""Tokens of the probe's two sequences."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.2, torch.float16: 0.05}
"""Mean difference of log-probabilities, in nats, up to which two computations count as equal.

In bfloat16 the logits of attention are rounded here, and not in torch's own attention."""


class EquivalenceProbe:
    """Two sequences of random tokens with the log-probabilities that a model computes for each by itself."""

    @torch.no_grad()
    def __init__(self, module: PreTrainedModel) -> None:
        """Compute the expected log-probabilities.

        Args:
            module: the model, in evaluation mode and with no adapter active.
        """
        self.device, self.dtype, self.architecture = module.device, module.dtype, type(module).__name__
        vocabulary = module.get_input_embeddings().weight.shape[0]
        drawn = torch.randint(0, vocabulary, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))
        self.sequences = torch.split_with_sizes(drawn.to(self.device), LENGTHS)
        self.supported = supports_attention_functions(module)
        self.expected = [
            module(input_ids=ids[None], use_cache=False).logits[0].float().log_softmax(-1) for ids in self.sequences
        ]

    @property
    def is_finite(self) -> bool:
        """Whether any log-probability is finite; False: the model's weights are damaged, or overflow."""
        return any(bool(logprobs.isfinite().any()) for logprobs in self.expected)

    @torch.no_grad()
    def accepts(self, compute: Callable[[], Sequence[torch.Tensor]]) -> bool:
        """Return whether another way to compute the log-probabilities gives the expected ones.

        Args:
            compute: returns for each sequence the log-probabilities of its last tokens, shape [tokens, vocabulary].
        """
        if not self.supported:
            return False
        try:
            computed = compute()
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            log.debug("%s does not take packed sequences: %s", self.architecture, error)
            return False
        actual = torch.cat(list(computed))
        expected = torch.cat(
            [whole[len(whole) - len(last) :] for whole, last in zip(self.expected, computed, strict=True)]
        )
        # Equal ones may be -inf: of tokens that a model masks.
        difference = float(torch.where(actual == expected, 0, actual - expected).abs().mean())
        log.debug("%s: packed and separate sequences differ by %.2g nats", self.architecture, difference)
        return difference <= TOLERANCE.get(self.dtype, min(TOLERANCE.values()))
