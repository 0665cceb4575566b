"""The likelihood of texts behind prompts, over the engine's scheduler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from lmtasks.backends.base import Continuation
from lmtasks.backends.native.batch import build_batch
from lmtasks.backends.native.config import EngineConfig
from lmtasks.backends.native.engine_model import EngineModel
from lmtasks.backends.native.kv_cache import KVBlock, KVBudget
from lmtasks.backends.native.scheduler import Scheduler
from lmtasks.backends.native.sequence import ScoringState, SharedPrefix

LOGIT_ROWS = 64
"""Rows of logits that are made float32 at once."""


@torch.inference_mode()
def score(
    model: EngineModel,
    continuations: Sequence[Continuation],
    *,
    kv_bytes: int,
    max_batch: int | None = None,
    config: EngineConfig | None = None,
) -> Iterator[list[tuple[int, float]]]:
    """Compute the log-likelihood of texts behind prompts, the longest first.

    Args:
        model: the prepared model.
        continuations: prompts and texts.
        kv_bytes: memory for keys and values.
        max_batch: texts at once; None: as many as `config` allows.
        config: all other limits.

    Yields:
        Those that finished together: the index of each in `continuations`, and its log-likelihood.

    Raises:
        ModelError: a single one needs more memory than there is.
    """
    config = config or EngineConfig()

    def compute_prefix(prefix: SharedPrefix, block: KVBlock) -> None:
        model.compute_prefix(prefix, block, max_tokens=config.max_batch_tokens)

    scheduler: Scheduler[ScoringState] = Scheduler(
        KVBudget(kv_bytes, model.bytes_per_token),
        compute_prefix,
        max_batch=max_batch or config.max_scoring_batch,
        config=config,
    )
    for index, item in enumerate(continuations):
        ids = [*item.token_ids, *item.answer_ids]
        scheduler.add(ScoringState(index, ids, len(item.token_ids), len(ids) - 1, item.adapter))
    while scheduler.has_unfinished:
        running = scheduler.schedule()
        batch = build_batch(
            running,
            max_tokens=config.max_batch_tokens,
            max_logits=max(1, config.max_batch_logits // model.vocab_size),
            device=model.device,
        )
        logits = model.compute(batch)
        for sequence, count in batch.sequences:
            sequence.computed += count
        by_sequence = torch.split_with_sizes(logits, [count for _, count in batch.logits])
        for (sequence, count), rows in zip(batch.logits, by_sequence, strict=True):
            end = sequence.prefix_len + sequence.computed + 1
            targets = torch.tensor(sequence.token_ids[end - count : end], device=rows.device)[:, None]
            for start in range(0, count, LOGIT_ROWS):
                exact = rows[start : start + LOGIT_ROWS].float()
                logprobs = exact.gather(-1, targets[start : start + LOGIT_ROWS])[:, 0] - exact.logsumexp(-1)
                sequence.logprob += float(logprobs.cpu().double().sum())
        finished = [sequence for sequence in running if not sequence.pending]
        for sequence in finished:
            scheduler.release(sequence)
        if finished:
            yield [(sequence.id, sequence.logprob) for sequence in finished]
