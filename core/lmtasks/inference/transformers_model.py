"""A model of transformers behind the door: batches of similar length, left padding, stop strings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from lmtasks.inference.door import Completion, Continuation, OnText, Request
from lmtasks.inference.sampling import logits_processors
from lmtasks.model.info import ModelInfo
from lmtasks.model.loading import LoadedModel
from lmtasks.task import Generation

BATCH_ROWS = 16
"""Rows at once, unless asked otherwise: measured best for short prompts on two CPU cores."""
BATCH_TOKENS = 16_384
"""Prompt and answer tokens of a batch at most, so that long prompts come in smaller batches."""
BATCH_LOGITS = 2**27
"""Logits of a batch at most (512 MiB in float32): answers times their length times the vocabulary."""


class TransformersModel:
    """A causal language model of any architecture that transformers ships."""

    def __init__(self, loaded: LoadedModel) -> None:
        """Take a loaded model."""
        self._loaded = loaded

    @property
    def info(self) -> ModelInfo:
        """What a run records of it."""
        return self._loaded.info

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's own tokenizer."""
        return self._loaded.tokenizer

    def generate(
        self,
        requests: Sequence[Request],
        generation: Generation,
        *,
        seed: int,
        batch_size: int | None = None,
        on_text: OnText | None = None,
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Answer prompts as the door says, the longest first: memory that lacks, lacks at the start."""
        widths = [len(request.token_ids) + generation.max_new_tokens for request in requests]
        for places in _batches(widths, batch_size):
            completions = self._answer([requests[place] for place in places], generation, seed, on_text)
            yield list(zip(places, completions, strict=True))

    @torch.inference_mode()
    def loglikelihood(
        self, continuations: Sequence[Continuation], *, batch_size: int | None = None
    ) -> Iterator[list[tuple[int, float]]]:
        """Measure texts behind prompts as the door says, the longest first."""
        vocabulary = self._loaded.module.get_output_embeddings().weight.shape[0]
        widths = [len(item.token_ids) + len(item.answer_ids) for item in continuations]
        for places in _batches(widths, batch_size):
            longest = max(len(continuations[place].answer_ids) for place in places)
            rows = max(1, BATCH_LOGITS // (longest * vocabulary))
            for start in range(0, len(places), rows):
                part = places[start : start + rows]
                yield list(zip(part, self._measure([continuations[place] for place in part]), strict=True))

    def _measure(self, batch: Sequence[Continuation]) -> list[float]:
        ids, mask = self._left_padded([[*item.token_ids, *item.answer_ids] for item in batch])
        longest = max(len(item.answer_ids) for item in batch)
        # Padded on the left, all answers end at the last place; what predicts a token stands one place before it.
        positions = (mask.cumsum(-1) - 1).clamp_min(0)
        output = self._loaded.module(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=longest + 1
        )
        measured = []
        for row, item in enumerate(batch):
            length = len(item.answer_ids)
            logits = output.logits[row, -length - 1 : -1].float()
            chosen = logits.gather(-1, ids[row, -length:, None]).squeeze(-1)
            measured.append(float((chosen - logits.logsumexp(-1)).double().sum()))
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
    def _answer(
        self, batch: Sequence[Request], generation: Generation, seed: int, on_text: OnText | None
    ) -> list[Completion]:
        loaded = self._loaded
        ids, mask = self._left_padded([request.token_ids for request in batch])
        width = ids.shape[1]
        watch = _TextWatch(loaded.tokenizer, width, generation.stop, on_text)
        output = loaded.module.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=generation.max_new_tokens,
            do_sample=False,  # the draw, if any, is in the processors
            logits_processor=logits_processors(generation, [request.key for request in batch], seed),
            stopping_criteria=StoppingCriteriaList([watch] if watch.needed else []),
        )
        return [self._completion(row, generation) for row in output[:, width:].tolist()]

    def _completion(self, new_ids: list[int], generation: Generation) -> Completion:
        end = next((at for at, token in enumerate(new_ids) if token in self._loaded.end_ids), None)
        count = len(new_ids) if end is None else end + 1
        text = _decode(self._loaded.tokenizer, new_ids[:end])
        at = _first_stop(text, generation.stop)
        if at is None:
            return Completion(text, count, "length" if end is None else "stop")
        # A row that met its stop string was padded while others went on: count what it took to get there.
        while count > 1 and _first_stop(_decode(self._loaded.tokenizer, new_ids[: count - 1]), generation.stop) == at:
            count -= 1
        return Completion(text[:at], count, "stop")


class _TextWatch(StoppingCriteria):
    """Ends rows whose new text holds a stop string, and tells a listener how the text of a single row grows."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, prompt_length: int, stop: tuple[str, ...], on_text: OnText | None
    ) -> None:
        self.tokenizer, self.prompt_length, self.stop, self.on_text = tokenizer, prompt_length, stop, on_text
        # A stop string spans at most as many tokens as it has bytes; one more holds a character's first half.
        self.tail = max((len(text.encode()) for text in stop), default=0) + 4

    @property
    def needed(self) -> bool:
        return bool(self.stop or self.on_text)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: object) -> torch.Tensor:
        new = input_ids[:, self.prompt_length :]
        done = torch.zeros(len(new), dtype=torch.bool)
        if self.stop:
            tails = new[:, -self.tail :].tolist()
            done = torch.tensor([_first_stop(_decode(self.tokenizer, tail), self.stop) is not None for tail in tails])
        if self.on_text:
            text = _decode(self.tokenizer, new[0].tolist())
            at = _first_stop(text, self.stop)
            self.on_text(_settled(text, self.stop) if at is None else text[:at])
        return done.to(input_ids.device)


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


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _settled(text: str, stop: tuple[str, ...]) -> str:
    """Return the part of a growing text that nothing to come can take back."""
    # A character whose last bytes are still to come decodes to U+FFFD.
    text = text.rstrip("\ufffd")
    longest = max(map(len, stop), default=0)
    for length in range(min(longest, len(text)), 0, -1):
        if any(string.startswith(text[-length:]) for string in stop):
            return text[:-length]
    return text


def _first_stop(text: str, stop: tuple[str, ...]) -> int | None:
    places = [at for at in (text.find(string) for string in stop) if at >= 0]
    return min(places, default=None)
