"""The engine: continuous batching without padding; requests may be added while others run."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from transformers import PreTrainedTokenizerBase

from lmtasks.backends.base import Completion, Request
from lmtasks.backends.native.batch import build_batch
from lmtasks.backends.native.config import EngineConfig
from lmtasks.backends.native.engine_model import EngineModel
from lmtasks.backends.native.kv_cache import KVBlock, KVBudget
from lmtasks.backends.native.scheduler import Scheduler
from lmtasks.backends.native.sequence import GenerationState, SharedPrefix
from lmtasks.backends.native.stats import EngineStats
from lmtasks.backends.sampling import choose, request_generator
from lmtasks.backends.stopping import StopCheck, decode, finish_completion, streamable_answer


class Engine:
    """Generates completions for requests, many at once.

    `add` takes a request, `step` computes the next tokens of all that run and returns completions that are finished,
    and `abort` drops a request. Its text depends neither on what else runs nor on when it was added.
    """

    def __init__(
        self,
        model: EngineModel,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Collection[int],
        *,
        kv_bytes: int,
        max_batch: int | None = None,
        config: EngineConfig | None = None,
    ) -> None:
        """Create an engine without requests.

        Args:
            model: the prepared model.
            tokenizer: the model's tokenizer.
            end_ids: tokens that end a completion.
            kv_bytes: memory for keys and values.
            max_batch: requests that run at once; None: as many as `config` allows.
            config: all other limits.
        """
        self._config = config or EngineConfig()
        self._model, self._tokenizer, self._end_ids = model, tokenizer, frozenset(end_ids)
        self._scheduler: Scheduler[GenerationState] = Scheduler(
            KVBudget(kv_bytes, model.bytes_per_token),
            self._compute_prefix,
            max_batch=max_batch or self._config.max_batch,
            config=self._config,
        )
        self._sequences: dict[int, GenerationState] = {}
        self._finished: list[tuple[int, Completion]] = []
        self._next_id = 0

    @property
    def has_unfinished(self) -> bool:
        """Whether any request waits or runs, or a completion was not returned yet."""
        return bool(self._finished) or self._scheduler.has_unfinished

    def add(self, request: Request, *, seed: int) -> int:
        """Add a request, and return its id.

        Args:
            request: with at least one token.
            seed: seed of the draws, with the request's key.

        Raises:
            ModelError: it alone needs more memory than there is.
        """
        prompt = list(request.token_ids)
        sequence = GenerationState(
            self._next_id,
            prompt,
            len(prompt),
            len(prompt) + request.sampling_params.max_new_tokens - 1,
            request.adapter,
            request=request,
            generator=request_generator(request.key, seed),
            stop_check=StopCheck(self._tokenizer, request.sampling_params.stop, request.reasoning),
        )
        self._scheduler.add(sequence)
        self._sequences[sequence.id] = sequence
        self._next_id += 1
        return sequence.id

    def abort(self, id: int) -> None:
        """Drop a request, and free what it holds; one that has finished is left alone."""
        if sequence := self._sequences.pop(id, None):
            self._scheduler.abort(sequence)

    @torch.inference_mode()
    def step(self) -> list[tuple[int, Completion]]:
        """Compute the next tokens of all requests that run; return ids and completions of those that finished.

        Callbacks are called at the end of the step. If one raises, the engine can go on: what had finished is returned
        by the next step.

        Raises:
            NotFiniteError: the logits of a request are NaN or infinite.
        """
        running = self._scheduler.schedule()
        if running:
            texts = self._compute(running)
            for request, text in texts:
                if request.on_text:
                    request.on_text(text)
        finished, self._finished = self._finished, []
        return finished

    def stats(self) -> EngineStats:
        """Return what was done so far, and what the KV cache holds now."""
        return self._scheduler.stats()

    def _compute(self, running: Sequence[GenerationState]) -> list[tuple[Request, str]]:
        """Pass a batch through the model, and return the texts that grew by requests with a callback."""
        self._scheduler.compact()
        counts = self._scheduler.counts
        if len(running) <= self._config.max_speculative_batch and all(sequence.pending == 1 for sequence in running):
            for sequence in running:
                counts.draft_tokens += sequence.propose_draft()
        batch = build_batch(
            running,
            max_tokens=self._config.max_batch_tokens,
            max_logits=max(1, self._config.max_batch_logits // self._model.vocab_size),
            device=self._model.device,
        )
        logits = self._model.compute(batch)
        prompt_tokens = batch.prompt_tokens
        counts.prefill_tokens += prompt_tokens
        counts.decode_tokens += len(batch.token_ids) - prompt_tokens
        for sequence, count in batch.sequences:
            sequence.computed += count
        chosen = iter(_choose(logits, batch.logits))
        self._scheduler.record_step()
        texts: list[tuple[Request, str]] = []
        for sequence, count in batch.logits:
            if self._accept_tokens(sequence, [next(chosen) for _ in range(count)], texts):
                self._finish(sequence)
        return texts

    def _accept_tokens(
        self, sequence: GenerationState, chosen: Sequence[int], texts: list[tuple[Request, str]]
    ) -> bool:
        """Append the tokens chosen behind a sequence's last token and behind each draft token; return if it is done.

        Draft tokens count as long as they are what was chosen.
        """
        draft = sequence.remove_draft()
        request, done = sequence.request, False
        for token, expected in zip(chosen, [*draft, None], strict=True):
            sequence.token_ids.append(token)
            new_ids = sequence.new_ids
            if request.on_text:
                text = decode(self._tokenizer, new_ids)
                texts.append((request, streamable_answer(text, request.sampling_params.stop, request.reasoning)))
            done = (
                token in self._end_ids
                or len(new_ids) >= request.sampling_params.max_new_tokens
                or sequence.stop_check.is_met(new_ids)
            )
            if done or token != expected:
                break
            self._scheduler.counts.draft_hits += 1
        sequence.computed = len(sequence.token_ids) - 1 - sequence.prefix_len
        return done

    def _finish(self, sequence: GenerationState) -> None:
        self._scheduler.release(sequence)
        del self._sequences[sequence.id]
        request = sequence.request
        completion = finish_completion(
            self._tokenizer, sequence.new_ids, request.sampling_params, self._end_ids, request.reasoning
        )
        self._finished.append((sequence.id, completion))

    def _compute_prefix(self, prefix: SharedPrefix, block: KVBlock) -> None:
        self._model.compute_prefix(prefix, block, max_tokens=self._config.max_batch_tokens)
        self._scheduler.counts.prefill_tokens += len(prefix.ids)


def _choose(logits: torch.Tensor, sequences: Sequence[tuple[GenerationState, int]]) -> list[int]:
    """Return the token that follows at each of the positions with logits."""
    if not sequences:
        return []
    rows = [sequence for sequence, count in sequences for _ in range(count)]
    return choose(
        logits,
        [sequence.request.sampling_params for sequence in rows],
        [sequence.generator for sequence in rows],
        [sequence.token_ids for sequence in rows],
    )
