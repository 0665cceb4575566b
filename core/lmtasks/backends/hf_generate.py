"""Batches padded on the left and transformers' own `generate`: for architectures that the engine cannot run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from lmtasks.backends.base import Completion, Continuation, OnText, Request
from lmtasks.backends.sampling import CheckFinite, Penalize, logits_processors, own_generator, sampling
from lmtasks.backends.stopping import StopCheck, completion, decode, streamed
from lmtasks.models.loading import LoadedModel

BATCH_ROWS = 16
"""Rows at once, unless asked otherwise: measured best for short prompts on two CPU cores."""
BATCH_TOKENS = 16_384
"""Prompt and answer tokens of a batch at most, so that long prompts come in smaller batches."""
BATCH_LOGITS = 2**27
"""Logits of a batch at most (512 MiB in float32): answers times their length times the vocabulary."""

Adapted = Callable[[Sequence[str | None]], AbstractContextManager[tuple[Any, dict[str, Any]]]]
"""Gives the model that answers rows with these adapters, and what it has to be told beside its inputs."""


class HFGenerateRunner:
    """Answers requests in padded batches."""

    def __init__(self, loaded: LoadedModel, adapted: Adapted) -> None:
        """Take a model, and the way to one with adapters."""
        self._loaded, self._adapted = loaded, adapted

    def generate(
        self, requests: Sequence[Request], *, seed: int, batch_size: int | None, on_text: OnText | None
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Answer prompts as the door says, the longest first: memory that lacks, lacks at the start."""
        kinds: dict[object, list[int]] = {}
        for place, request in enumerate(requests):
            kinds.setdefault(sampling(request.generation), []).append(place)
        for alike in kinds.values():
            widths = [len(requests[place].token_ids) + requests[place].generation.max_new_tokens for place in alike]
            for batch in _batches(widths, batch_size):
                places = [alike[at] for at in batch]
                completions = self._answer([requests[place] for place in places], seed, on_text)
                yield list(zip(places, completions, strict=True))

    @torch.inference_mode()
    def measure(
        self, continuations: Sequence[Continuation], *, batch_size: int | None
    ) -> Iterator[list[tuple[int, float]]]:
        """Measure texts behind prompts as the door says, the longest first."""
        vocabulary = self._loaded.module.get_output_embeddings().weight.shape[0]
        widths = [len(item.token_ids) + len(item.answer_ids) for item in continuations]
        for batch in _batches(widths, batch_size):
            longest = max(len(continuations[place].answer_ids) for place in batch)
            rows = max(1, BATCH_LOGITS // (longest * vocabulary))
            for start in range(0, len(batch), rows):
                places = batch[start : start + rows]
                yield list(zip(places, self._measure([continuations[place] for place in places]), strict=True))

    def _measure(self, batch: Sequence[Continuation]) -> list[float]:
        ids, mask = self._left_padded([[*item.token_ids, *item.answer_ids] for item in batch])
        longest = max(len(item.answer_ids) for item in batch)
        # Padded on the left, all answers end at the last place; what predicts a token stands one place before it.
        positions = (mask.cumsum(-1) - 1).clamp_min(0)
        with self._adapted([item.adapter for item in batch]) as (model, told):
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                use_cache=False,
                logits_to_keep=longest + 1,
                **told,
            )
        measured = []
        for row, item in enumerate(batch):
            length = len(item.answer_ids)
            logits = output.logits[row, -length - 1 : -1].float()
            chosen = logits.gather(-1, ids[row, -length:, None]).squeeze(-1)
            measured.append(float((chosen - logits.logsumexp(-1)).cpu().double().sum()))
        return measured

    def _left_padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids and attention mask, both of shape [rows, longest]."""
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._loaded.pad_id)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for at, row in enumerate(rows):
            ids[at, width - len(row) :] = torch.tensor(row)
            mask[at, width - len(row) :] = 1
        device = self._loaded.module.device
        return ids.to(device), mask.to(device)

    @torch.inference_mode()
    def _answer(self, batch: Sequence[Request], seed: int, on_text: OnText | None) -> list[Completion]:
        loaded = self._loaded
        ids, mask = self._left_padded([request.token_ids for request in batch])
        width = ids.shape[1]
        generations = [request.generation for request in batch]
        longest = max(generation.max_new_tokens for generation in generations)
        watch = _TextWatch(loaded.tokenizer, width, batch, on_text)
        processors = logits_processors(generations[0], [own_generator(request.key, seed) for request in batch])
        if generations[0].repetition_penalty != 1:
            prompts = [request.token_ids for request in batch]
            processors.insert(0, Penalize(prompts, width, generations[0].repetition_penalty))
        processors.insert(0, CheckFinite())
        with self._adapted([request.adapter for request in batch]) as (model, told):
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=longest,
                do_sample=False,  # the draw, if any, is in the processors
                logits_processor=processors,
                stopping_criteria=StoppingCriteriaList([watch] if watch.needed else []),
                **told,
            )
        rows = output[:, width:].tolist()
        return [
            completion(loaded.tokenizer, row, request.generation, loaded.end_ids, request.reasoning)
            for row, request in zip(rows, batch, strict=True)
        ]


class _TextWatch(StoppingCriteria):
    """Ends rows whose new text holds a stop string or is long enough, and tells a listener how a single row grows."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt_length: int,
        batch: Sequence[Request],
        on_text: OnText | None,
    ) -> None:
        self.tokenizer, self.prompt_length, self.batch, self.on_text = tokenizer, prompt_length, batch, on_text
        self.checks = [StopCheck(tokenizer, request.generation.stop, request.reasoning) for request in batch]
        self.limits = [request.generation.max_new_tokens for request in batch]

    @property
    def needed(self) -> bool:
        stops = any(request.generation.stop for request in self.batch)
        return bool(stops or self.on_text or len(set(self.limits)) > 1)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: object) -> torch.Tensor:
        new = input_ids[:, self.prompt_length :]
        done = [new.shape[1] >= limit for limit in self.limits]
        for row, ids in enumerate(new.tolist()):
            done[row] = done[row] or self.checks[row].is_met(ids)
        if self.on_text:
            request = self.batch[0]
            text = decode(self.tokenizer, new[0].tolist())
            self.on_text(streamed(text, request.generation.stop, request.reasoning))
        return torch.tensor(done, device=input_ids.device)


def _batches(widths: Sequence[int], batch_size: int | None) -> Iterator[list[int]]:
    """Divide rows of these many tokens into batches of similar ones, the longest first; yield their places."""
    batch: list[int] = []
    for place in sorted(range(len(widths)), key=lambda place: -widths[place]):
        full = batch_size or max(1, min(BATCH_ROWS, BATCH_TOKENS // widths[batch[0] if batch else place]))
        if len(batch) >= full:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
