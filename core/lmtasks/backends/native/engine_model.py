"""A prepared model that computes the engine's batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from lmtasks.backends.native.attention import ForwardBatch, PrefillChunk
from lmtasks.backends.native.batch import Batch
from lmtasks.backends.native.kv_cache import KVBlock
from lmtasks.backends.native.multi_lora import AdapterTokens
from lmtasks.backends.native.sequence import SequenceState, SequenceT, SharedPrefix
from lmtasks.models.adapter_files import adapter_name


@dataclass(frozen=True, slots=True)
class EngineModel:
    """A model from `engine_copy`, and what its keys and values take."""

    module: PreTrainedModel
    bytes_per_token: int
    """Bytes that keys and values of a token take."""
    adapter_tokens: AdapterTokens | None = None
    """The dictionary that the model's adapters read, where it has any."""

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        device: torch.device = self.module.device
        return device

    @property
    def vocab_size(self) -> int:
        """Size of the vocabulary."""
        return int(self.module.config.get_text_config().vocab_size)

    def compute(self, batch: Batch[SequenceT]) -> torch.Tensor:
        """Return the logits that a batch keeps, shape [kept, vocabulary], and cache keys and values of its tokens."""
        if self.adapter_tokens is not None:
            by_adapter: dict[str, list[int]] = {}
            for adapter, start, count in batch.adapters:
                if adapter is not None:
                    by_adapter.setdefault(adapter_name(adapter), []).extend(range(start, start + count))
            self.adapter_tokens.clear()
            for name, tokens in by_adapter.items():
                self.adapter_tokens[name] = torch.tensor(tokens, device=self.device)
        output = self.module(
            input_ids=torch.tensor([batch.token_ids], device=self.device),
            position_ids=torch.tensor([batch.positions], device=self.device),
            use_cache=False,
            logits_to_keep=torch.tensor(batch.keep or [0], device=self.device),
            lmtasks_batch=batch.forward,
        )
        logits: torch.Tensor = output.logits[0]
        return logits[: len(batch.keep)]

    def compute_prefix(self, prefix: SharedPrefix, block: KVBlock, *, max_tokens: int) -> None:
        """Fill the only slot of a block with a prefix, at most so many tokens at once."""
        for start in range(0, len(prefix.ids), max_tokens):
            ids = prefix.ids[start : start + max_tokens]
            batch: Batch[SequenceState] = Batch(
                token_ids=list(ids),
                positions=list(range(start, start + len(ids))),
                forward=ForwardBatch([PrefillChunk(0, len(ids), block, 0, start)], []),
                adapters=[(prefix.adapter, 0, len(ids))],
            )
            self.compute(batch)
