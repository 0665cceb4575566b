"""The hf-generate backend: left-padded batches and transformers' `generate`, which any architecture supports."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from lmtasks.backends.base import Completion, Continuation, Request
from lmtasks.backends.sampling import CheckFinite, Penalize, logits_processors, request_generator, sampling_settings
from lmtasks.backends.stopping import StopCheck, decode, finish_completion, streamable_answer
from lmtasks.models.loading import LoadedModel

BATCH_ROWS = 16
"""Rows of a batch, where no batch size is given: measured best for short prompts on two CPU cores."""
BATCH_TOKENS = 16_384
"""Prompt and answer tokens of a batch at most, so that long prompts come in smaller batches."""
BATCH_LOGITS = 2**27
"""Logits of a batch at most (512 MiB in float32): answers times their length times the vocabulary."""

Adapted = Callable[[Sequence[str | None]], AbstractContextManager[tuple[Any, dict[str, Any]]]]
"""Returns the model that computes rows with these adapters, and its arguments beside the inputs."""


class HFGenerateRunner:
    """Runs requests in padded batches."""

    name = "hf-generate"

    def __init__(self, loaded: LoadedModel, adapted: Adapted) -> None:
        """Run a loaded model.

        Args:
            loaded: the model.
            adapted: activates adapters for the rows of a batch.
        """
        self._loaded, self._adapted = loaded, adapted

    def generate(
        self, requests: Sequence[Request], *, seed: int, batch_size: int | None
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Answer requests, the longest first: memory that lacks, lacks at the start. See `LanguageModel.generate`."""
        groups: dict[object, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(sampling_settings(request.sampling_params), []).append(index)
        for members in groups.values():
            widths = [
                len(requests[index].token_ids) + requests[index].sampling_params.max_new_tokens for index in members
            ]
            for batch in _batches(widths, batch_size):
                indices = [members[row] for row in batch]
                completions = self._generate_batch([requests[index] for index in indices], seed)
                yield list(zip(indices, completions, strict=True))

    @torch.inference_mode()
    def loglikelihood(
        self, continuations: Sequence[Continuation], *, batch_size: int | None
    ) -> Iterator[list[tuple[int, float]]]:
        """Compute log-likelihoods, the longest texts first. See `LanguageModel.loglikelihood`."""
        vocabulary = self._loaded.module.get_output_embeddings().weight.shape[0]
        widths = [len(item.token_ids) + len(item.answer_ids) for item in continuations]
        for batch in _batches(widths, batch_size):
            longest = max(len(continuations[index].answer_ids) for index in batch)
            rows = max(1, BATCH_LOGITS // (longest * vocabulary))
            for start in range(0, len(batch), rows):
                indices = batch[start : start + rows]
                yield list(zip(indices, self._score_batch([continuations[index] for index in indices]), strict=True))

    def _score_batch(self, batch: Sequence[Continuation]) -> list[float]:
        ids, mask = self._left_padded([[*item.token_ids, *item.answer_ids] for item in batch])
        longest = max(len(item.answer_ids) for item in batch)
        # Padded on the left, all answers end in the last column; a token is predicted one column before it.
        positions = (mask.cumsum(-1) - 1).clamp_min(0)
        with self._adapted([item.adapter for item in batch]) as (model, arguments):
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                use_cache=False,
                logits_to_keep=longest + 1,
                **arguments,
            )
        logprobs = []
        for row, item in enumerate(batch):
            length = len(item.answer_ids)
            logits = output.logits[row, -length - 1 : -1].float()
            chosen = logits.gather(-1, ids[row, -length:, None]).squeeze(-1)
            logprobs.append(float((chosen - logits.logsumexp(-1)).cpu().double().sum()))
        return logprobs

    def _left_padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids and attention mask, both of shape [rows, longest]."""
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._loaded.pad_id)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, width - len(row) :] = torch.tensor(row)
            mask[index, width - len(row) :] = 1
        device = self._loaded.module.device
        return ids.to(device), mask.to(device)

    @torch.inference_mode()
    def _generate_batch(self, batch: Sequence[Request], seed: int) -> list[Completion]:
        loaded = self._loaded
        ids, mask = self._left_padded([request.token_ids for request in batch])
        width = ids.shape[1]
        generations = [request.sampling_params for request in batch]
        longest = max(generation.max_new_tokens for generation in generations)
        criteria = _RowCriteria(loaded.tokenizer, loaded.end_ids, width, batch)
        processors = logits_processors(generations[0], [request_generator(request.key, seed) for request in batch])
        if generations[0].repetition_penalty != 1:
            prompts = [request.token_ids for request in batch]
            processors.insert(0, Penalize(prompts, width, generations[0].repetition_penalty))
        processors.insert(0, CheckFinite())
        with self._adapted([request.adapter for request in batch]) as (model, arguments):
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=longest,
                do_sample=False,  # the draw, if any, is in the processors
                logits_processor=processors,
                stopping_criteria=StoppingCriteriaList([criteria] if criteria.needed else []),
                **arguments,
            )
        rows = output[:, width:].tolist()
        return [
            finish_completion(loaded.tokenizer, row, request.sampling_params, loaded.end_ids, request.reasoning)
            for row, request in zip(rows, batch, strict=True)
        ]


class _RowCriteria(StoppingCriteria):
    """Ends rows whose new text holds a stop string or is long enough, and streams the text of each row."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Collection[int],
        prompt_length: int,
        batch: Sequence[Request],
    ) -> None:
        self.tokenizer, self.end_ids, self.prompt_length, self.batch = tokenizer, end_ids, prompt_length, batch
        self.done = [False] * len(batch)
        self.checks = [StopCheck(tokenizer, request.sampling_params.stop, request.reasoning) for request in batch]
        self.limits = [request.sampling_params.max_new_tokens for request in batch]

    @property
    def needed(self) -> bool:
        watched = any(request.sampling_params.stop or request.on_text for request in self.batch)
        return watched or len(set(self.limits)) > 1

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: object) -> torch.Tensor:
        new = input_ids[:, self.prompt_length :]
        done = [new.shape[1] >= limit for limit in self.limits]
        for row, (request, ids) in enumerate(zip(self.batch, new.tolist(), strict=True)):
            done[row] = done[row] or ids[-1] in self.end_ids or self.checks[row].is_met(ids)
            if request.on_text and not self.done[row]:
                text = decode(self.tokenizer, ids)
                request.on_text(streamable_answer(text, request.sampling_params.stop, request.reasoning))
        self.done = [before or now for before, now in zip(self.done, done, strict=True)]
        return torch.tensor(done, device=input_ids.device)


def _batches(widths: Sequence[int], batch_size: int | None) -> Iterator[list[int]]:
    """Divide rows of these many tokens into batches of similar ones, the longest first; yield their indices."""
    batch: list[int] = []
    for index in sorted(range(len(widths)), key=lambda index: -widths[index]):
        full = batch_size or max(1, min(BATCH_ROWS, BATCH_TOKENS // widths[batch[0] if batch else index]))
        if len(batch) >= full:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
