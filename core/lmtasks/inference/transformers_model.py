"""A model of transformers behind the door: the engine where it can run it, else padded batches and `generate`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from lmtasks.errors import AdapterError
from lmtasks.inference.allocation import keep_freed_memory
from lmtasks.inference.door import Completion, Continuation, OnText, Request
from lmtasks.inference.engine import MOST_SEQUENCES, Engine
from lmtasks.inference.packed import packed_copy, try_packed
from lmtasks.inference.sampling import logits_processors, own_generator, sampling
from lmtasks.inference.text import completion, decode, first_stop, settled, tail_length
from lmtasks.model.adapter import Adapter
from lmtasks.model.attach import adapter_name, attach, effect
from lmtasks.model.info import ModelInfo
from lmtasks.model.loading import LoadedModel
from lmtasks.model.quiet import quiet
from lmtasks.task import Generation

MEMORY_BYTES = 2**30
"""For keys and values, unless asked otherwise."""
BATCH_ROWS = 16
"""Rows at once, unless asked otherwise: measured best for short prompts on two CPU cores."""
BATCH_TOKENS = 16_384
"""Prompt and answer tokens of a batch at most, so that long prompts come in smaller batches."""
PROBE = "The ferry leaves the harbour at nine, and the last one returns at"
"""What an adapter is tried on."""
BATCH_LOGITS = 2**27
"""Logits of a batch at most (512 MiB in float32): answers times their length times the vocabulary."""


class TransformersModel:
    """A causal language model of any architecture that transformers ships."""

    def __init__(self, loaded: LoadedModel, *, memory_bytes: int = MEMORY_BYTES) -> None:
        """Take a loaded model, and how much memory keys and values may take."""
        keep_freed_memory()
        self._loaded, self._memory_bytes = loaded, memory_bytes
        self._bytes_per_token: int | None | Literal["unknown"] = "unknown"
        self._merged: tuple[str, Engine] | None = None
        self._peft: PeftModel | None = None
        self._adapters: dict[str, tuple[Adapter, float]] = {}

    @property
    def info(self) -> ModelInfo:
        """What a run records of it."""
        return self._loaded.info

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's own tokenizer."""
        return self._loaded.tokenizer

    def attach(self, adapter: Adapter) -> float:
        """Take an adapter into memory as the door says."""
        if adapter.id not in self._adapters:
            # peft draws numbers for weights that it then replaces: nobody's draws are to change by that.
            with quiet(), torch.random.fork_rng(devices=[]):
                self._peft = attach(self._peft or self._loaded.module, adapter, self.info)
            words = self.tokenizer.encode(PROBE, add_special_tokens=False)
            moved = effect(self._peft, adapter, words)
            if not math.isfinite(moved):
                raise AdapterError(f"{adapter.source}: with this adapter {self.info.name} computes what is no number")
            self._adapters[adapter.id] = adapter, moved
        return self._adapters[adapter.id][1]

    def generate(
        self,
        requests: Sequence[Request],
        *,
        seed: int,
        batch_size: int | None = None,
        on_text: OnText | None = None,
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Answer prompts as the door says, the longest first: memory that lacks, lacks at the start."""
        adapters = {request.adapter for request in requests}
        if self.engine == "slots" and len(adapters) == 1:
            engine = self._engine(adapters.pop())
            most = batch_size or MOST_SEQUENCES
            yield from engine.generate(requests, seed=seed, most_sequences=most, on_text=on_text)
            return
        for alike in self._alike([(sampling(request.generation), request.adapter) for request in requests]):
            widths = [len(requests[place].token_ids) + requests[place].generation.max_new_tokens for place in alike]
            for batch in _batches(widths, batch_size):
                places = [alike[at] for at in batch]
                completions = self._answer([requests[place] for place in places], seed, on_text)
                yield list(zip(places, completions, strict=True))

    @property
    def engine(self) -> str:
        """What answers prompts: "slots", the engine, or "generate", that of transformers."""
        if self._bytes_per_token == "unknown":
            with self._adapted([None]) as (model, _):
                base = self._loaded.module
                self._bytes_per_token = try_packed(packed_copy(base, None), model)
        return "generate" if self._bytes_per_token is None else "slots"

    def _engine(self, adapter: str | None) -> Engine:
        """Return the engine of the base, or of the base with an adapter merged; the last one merged is kept."""
        if self._merged is None or self._merged[0] != str(adapter):
            loaded = self._loaded
            packed = packed_copy(loaded.module, adapter and adapter_name(adapter))
            engine = Engine(
                packed,
                loaded.tokenizer,
                loaded.end_ids,
                memory_bytes=self._memory_bytes,
                bytes_per_token=int(self._bytes_per_token or 0),
            )
            self._merged = str(adapter), engine
        return self._merged[1]

    @torch.inference_mode()
    def loglikelihood(
        self, continuations: Sequence[Continuation], *, batch_size: int | None = None
    ) -> Iterator[list[tuple[int, float]]]:
        """Measure texts behind prompts as the door says, the longest first."""
        vocabulary = self._loaded.module.get_output_embeddings().weight.shape[0]
        for alike in self._alike([(None, item.adapter) for item in continuations]):
            widths = [len(continuations[at].token_ids) + len(continuations[at].answer_ids) for at in alike]
            for batch in _batches(widths, batch_size):
                longest = max(len(continuations[alike[at]].answer_ids) for at in batch)
                rows = max(1, BATCH_LOGITS // (longest * vocabulary))
                for start in range(0, len(batch), rows):
                    places = [alike[at] for at in batch[start : start + rows]]
                    yield list(zip(places, self._measure([continuations[place] for place in places]), strict=True))

    def _alike(self, kinds: Sequence[tuple[object, str | None]]) -> Iterator[list[int]]:
        """Yield the places of what may share batches: drawn alike, and no adapter among them that must be alone."""
        groups: dict[object, list[int]] = {}
        for place, (kind, adapter) in enumerate(kinds):
            alone = adapter is not None and not self._adapters[adapter][0].shares_batches
            groups.setdefault((kind, adapter if alone else None), []).append(place)
        yield from groups.values()

    @contextmanager
    def _adapted(self, adapters: Sequence[str | None]) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Give the model that answers rows with these adapters, and what it has to be told beside its inputs."""
        if self._peft is None:
            yield self._loaded.module, {}
        elif set(adapters) == {None}:
            with self._peft.disable_adapter():
                yield self._peft, {}
        elif len(set(adapters)) == 1:
            self._peft.set_adapter(adapter_name(str(adapters[0])), inference_mode=True)
            yield self._peft, {}
        else:
            names = ["__base__" if adapter is None else adapter_name(adapter) for adapter in adapters]
            yield self._peft, {"adapter_names": names}

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
    def _answer(self, batch: Sequence[Request], seed: int, on_text: OnText | None) -> list[Completion]:
        loaded = self._loaded
        ids, mask = self._left_padded([request.token_ids for request in batch])
        width = ids.shape[1]
        generations = [request.generation for request in batch]
        longest = max(generation.max_new_tokens for generation in generations)
        watch = _TextWatch(loaded.tokenizer, width, generations, on_text)
        with self._adapted([request.adapter for request in batch]) as (model, told):
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=longest,
                do_sample=False,  # the draw, if any, is in the processors
                logits_processor=logits_processors(
                    generations[0], [own_generator(request.key, seed) for request in batch]
                ),
                stopping_criteria=StoppingCriteriaList([watch] if watch.needed else []),
                **told,
            )
        rows = output[:, width:].tolist()
        return [
            completion(loaded.tokenizer, row, generation, loaded.end_ids)
            for row, generation in zip(rows, generations, strict=True)
        ]


class _TextWatch(StoppingCriteria):
    """Ends rows whose new text holds a stop string or is long enough, and tells a listener how a single row grows."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt_length: int,
        generations: Sequence[Generation],
        on_text: OnText | None,
    ) -> None:
        self.tokenizer, self.prompt_length, self.on_text = tokenizer, prompt_length, on_text
        self.stops = [generation.stop for generation in generations]
        self.limits = [generation.max_new_tokens for generation in generations]
        self.tail = max(map(tail_length, self.stops))

    @property
    def needed(self) -> bool:
        return bool(any(self.stops) or self.on_text or len(set(self.limits)) > 1)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: object) -> torch.Tensor:
        new = input_ids[:, self.prompt_length :]
        done = [new.shape[1] >= limit for limit in self.limits]
        if any(self.stops):
            for row, tail in enumerate(new[:, -self.tail :].tolist()):
                if self.stops[row] and not done[row]:
                    done[row] = first_stop(decode(self.tokenizer, tail), self.stops[row]) is not None
        if self.on_text:
            text, stop = decode(self.tokenizer, new[0].tolist()), self.stops[0]
            at = first_stop(text, stop)
            self.on_text(settled(text, stop) if at is None else text[:at])
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
