"""Generation without padding: prompts packed in one row, answers in slots that are filled again as they get free."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmtasks.errors import ModelError
from lmtasks.inference.attention import Column, Shared, Step, Stretch
from lmtasks.inference.cache import Budget, Slots
from lmtasks.inference.door import Completion, OnText, Request
from lmtasks.inference.prefixes import shared_prefixes
from lmtasks.inference.sampling import choose, own_generator
from lmtasks.inference.text import completion, decode, first_stop, settled, tail_length

ROW_TOKENS = 1024
"""That pass through the model at once, at most."""
MOST_SEQUENCES = 64
"""Under way at once, unless asked otherwise."""


@dataclass(slots=True, eq=False)
class _Prefix:
    """What some prompts have in common."""

    ids: tuple[int, ...]
    users: int
    """Sequences that are still to begin or under way with it."""
    slots: Slots = field(init=False)
    fed: bool = False


@dataclass(slots=True, eq=False)
class _Sequence:
    """A request under way."""

    place: int
    request: Request
    generator: torch.Generator
    prefix: _Prefix | None
    base: int
    """Tokens of its prefix."""
    slots: Slots = field(init=False)
    slot: int = -1
    fed: int = 0
    """Tokens, those of the prefix left out, whose keys and values are in the slot."""
    new: list[int] = field(default_factory=list)

    @property
    def pending(self) -> int:
        """Tokens that are known and not yet fed."""
        return len(self.request.token_ids) - self.base + len(self.new) - self.fed

    @property
    def need(self) -> int:
        """Tokens that its slot must have room for."""
        return len(self.request.token_ids) - self.base + self.request.generation.max_new_tokens - 1

    def ids(self, count: int) -> Sequence[int]:
        """Return the next tokens to be fed."""
        own = len(self.request.token_ids) - self.base
        if self.fed >= own:
            return self.new[self.fed - own : self.fed - own + count]
        return self.request.token_ids[self.base + self.fed : self.base + self.fed + count]


class Engine:
    """Answers requests with a model whose attention is `lmtasks.inference.attention.attend`."""

    def __init__(
        self,
        module: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Sequence[int],
        *,
        memory_bytes: int,
        bytes_per_token: int,
    ) -> None:
        """Take a model, what ends its answers, and how much memory keys and values may take and do take per token."""
        self.module, self.tokenizer, self.end_ids = module, tokenizer, frozenset(end_ids)
        self.memory_bytes, self.bytes_per_token = memory_bytes, bytes_per_token

    @torch.inference_mode()
    def generate(
        self,
        requests: Sequence[Request],
        *,
        seed: int,
        most_sequences: int = MOST_SEQUENCES,
        on_text: OnText | None = None,
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Answer requests, the longest first, and yield answers as they are finished.

        Args:
            requests: as of `LanguageModel.generate`.
            seed: likewise.
            most_sequences: under way at once.
            on_text: likewise.

        Raises:
            ModelError: a single request needs more memory than there is.
        """
        budget = Budget(self.memory_bytes, self.bytes_per_token)
        waiting = self._wait(requests, seed)
        active: list[_Sequence] = []
        while waiting or active:
            self._admit(waiting, active, budget, most_sequences)
            if not active:
                need = waiting[0].need + waiting[0].base
                raise ModelError(
                    f"keys and values of {need} tokens take {need * budget.bytes_per_token / 2**20:.0f} MiB, more than"
                    f" the {budget.bytes / 2**20:.0f} MiB that --memory allows"
                )
            self._step(active)
            done = [sequence for sequence in active if self._is_done(sequence, on_text)]
            if done:
                active = [sequence for sequence in active if sequence not in done]
                for sequence in done:
                    self._leave(sequence, budget)
                yield [(sequence.place, self._completion(sequence)) for sequence in done]

    def _wait(self, requests: Sequence[Request], seed: int) -> deque[_Sequence]:
        lengths = shared_prefixes([request.token_ids for request in requests])
        prefixes: dict[tuple[int, ...], _Prefix] = {}
        sequences = []
        for place, (request, length) in enumerate(zip(requests, lengths, strict=True)):
            prefix = None
            if length:
                ids = tuple(request.token_ids[:length])
                prefix = prefixes.setdefault(ids, _Prefix(ids, 0))
                prefix.users += 1
            sequences.append(_Sequence(place, request, own_generator(request.key, seed), prefix, length))
        # The longest first: what comes later fits into every slot that gets free.
        return deque(sorted(sequences, key=lambda sequence: -sequence.need))

    def _admit(self, waiting: deque[_Sequence], active: list[_Sequence], budget: Budget, most_sequences: int) -> None:
        """Give slots to those that wait, as long as there are any."""
        while waiting and len(active) < most_sequences:
            sequence = waiting[0]
            if sequence.prefix and not sequence.prefix.fed:
                slots = budget.take(1, len(sequence.prefix.ids))
                if slots is None:
                    break
                self._feed_prefix(sequence.prefix, slots)
            free = next((slots for slots in budget.taken if slots.free and slots.width >= sequence.need), None)
            free = free or budget.take(min(len(waiting), most_sequences - len(active)), sequence.need)
            if free is None:
                break
            sequence.slots, sequence.slot = free, free.free.pop()
            active.append(waiting.popleft())

    def _feed_prefix(self, prefix: _Prefix, slots: Slots) -> None:
        slots.free.clear()
        for start in range(0, len(prefix.ids), ROW_TOKENS):
            part = prefix.ids[start : start + ROW_TOKENS]
            positions = list(range(start, start + len(part)))
            step = Step([Stretch(0, len(part), slots, 0, start)], [])
            self._forward(list(part), positions, step, [0])
        prefix.slots, prefix.fed = slots, True

    def _step(self, active: Sequence[_Sequence]) -> None:
        """Feed each sequence its next token, or as much of its prompt as there is room for; then choose tokens."""
        single = [sequence for sequence in active if sequence.pending == 1]
        room = ROW_TOKENS - len(single)
        fed: list[tuple[_Sequence, int]] = []
        for sequence in active:
            if sequence.pending > 1 and room > 0:
                count = min(sequence.pending, room)
                fed.append((sequence, count))
                room -= count
        single.sort(key=lambda sequence: id(sequence.slots))
        fed += [(sequence, 1) for sequence in single]
        ids: list[int] = []
        positions: list[int] = []
        ends: list[int] = []
        stretches: list[Stretch] = []
        for sequence, count in fed:
            if count > 1 or sequence.pending > 1:
                stretches.append(Stretch(len(ids), count, sequence.slots, sequence.slot, sequence.fed))
            ids += sequence.ids(count)
            positions += range(sequence.base + sequence.fed, sequence.base + sequence.fed + count)
            ends.append(len(ids) - 1)
        step = Step(stretches, self._columns(single, len(ids)), self._shared(fed, positions))
        choosing = [at for at, (sequence, count) in enumerate(fed) if sequence.pending == count]
        logits = self._forward(ids, positions, step, [ends[at] for at in choosing] or [0])
        for sequence, count in fed:
            sequence.fed += count
        chosen = [fed[at][0] for at in choosing]
        if chosen:
            generations = [sequence.request.generation for sequence in chosen]
            drawn = choose(logits, generations, [sequence.generator for sequence in chosen])
            for sequence, token in zip(chosen, drawn, strict=True):
                sequence.new.append(token)

    def _columns(self, single: Sequence[_Sequence], total: int) -> list[Column]:
        columns = []
        device = self.module.device
        start = total - len(single)
        groups: dict[Slots, list[int]] = {}
        for at, sequence in enumerate(single):
            groups.setdefault(sequence.slots, []).append(at)
        for slots, members in groups.items():
            own = [single[at] for at in members]
            columns.append(
                Column(
                    slots,
                    torch.tensor([start + at for at in members], device=device),
                    torch.tensor([sequence.slot for sequence in own], device=device),
                    torch.tensor([sequence.fed for sequence in own], device=device),
                    high=max(sequence.slot for sequence in own) + 1,
                    width=max(sequence.fed for sequence in own) + 1,
                )
            )
        return columns

    def _shared(self, fed: Sequence[tuple[_Sequence, int]], positions: Sequence[int]) -> list[Shared]:
        tokens: dict[_Prefix, list[int]] = {}
        start = 0
        for sequence, count in fed:
            if sequence.prefix:
                tokens.setdefault(sequence.prefix, []).extend(range(start, start + count))
            start += count
        device = self.module.device
        return [
            Shared(
                prefix.slots,
                torch.tensor(own, device=device),
                torch.tensor([positions[at] for at in own], device=device),
                max(positions[at] for at in own),
            )
            for prefix, own in tokens.items()
        ]

    def _forward(self, ids: list[int], positions: list[int], step: Step, keep: list[int]) -> torch.Tensor:
        """Return logits at some places of a row, shape [places, vocabulary]."""
        device = self.module.device
        output = self.module(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.tensor([positions], device=device),
            use_cache=False,
            logits_to_keep=torch.tensor(keep, device=device),
            lmtasks_step=step,
        )
        logits: torch.Tensor = output.logits[0]
        return logits

    def _is_done(self, sequence: _Sequence, on_text: OnText | None) -> bool:
        if not sequence.new or sequence.pending != 1:
            return False
        generation = sequence.request.generation
        stop = generation.stop
        if on_text:
            text = decode(self.tokenizer, sequence.new)
            at = first_stop(text, stop)
            on_text(settled(text, stop) if at is None else text[:at])
        if sequence.new[-1] in self.end_ids or len(sequence.new) >= generation.max_new_tokens:
            return True
        if not stop:
            return False
        return first_stop(decode(self.tokenizer, sequence.new[-tail_length(stop) :]), stop) is not None

    def _leave(self, sequence: _Sequence, budget: Budget) -> None:
        slots = sequence.slots
        slots.free.append(sequence.slot)
        if len(slots.free) == slots.count:
            budget.give_back(slots)
        if sequence.prefix:
            sequence.prefix.users -= 1
            if not sequence.prefix.users:
                budget.give_back(sequence.prefix.slots)

    def _completion(self, sequence: _Sequence) -> Completion:
        return completion(self.tokenizer, sequence.new, sequence.request.generation, self.end_ids)
