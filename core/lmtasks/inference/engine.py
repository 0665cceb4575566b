"""Generation without padding: prompts packed in one row, answers in slots that are filled again as they get free."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmtasks.errors import ModelError
from lmtasks.inference.attention import Column, Step, Stretch
from lmtasks.inference.cache import Budget, Slots
from lmtasks.inference.door import Completion, OnText, Request
from lmtasks.inference.prefixes import shared_prefixes
from lmtasks.inference.sampling import choose, own_generator
from lmtasks.inference.text import completion, decode, first_stop, settled, tail_length

ROW_TOKENS = 1024
"""That pass through the model at once, at most."""
MOST_SEQUENCES = 64
"""Under way at once, unless asked otherwise."""
APART = 8
"""Sequences with the same prefix from which on its keys and values stay apart, and are read for all at once."""


@dataclass(slots=True, eq=False)
class _Prefix:
    """What some prompts have in common."""

    ids: tuple[int, ...]
    users: int = 0
    """Sequences that are still to begin or under way with it."""
    waiting: int = 0
    """Sequences that are still to begin with it."""
    apart: bool = False
    """Whether its keys and values are read where they are; else each sequence gets a copy."""
    slots: Slots | None = None


@dataclass(slots=True, eq=False)
class _Sequence:
    """A request under way."""

    place: int
    request: Request
    generator: torch.Generator
    prefix: _Prefix
    slots: Slots = field(init=False)
    slot: int = -1
    fed: int = 0
    """Tokens whose keys and values are in the slot."""
    new: list[int] = field(default_factory=list)

    @property
    def base(self) -> int:
        """Tokens at its beginning that are kept apart."""
        return len(self.prefix.ids) if self.prefix.apart else 0

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
            if not active and waiting[0].prefix.ids and not waiting[0].prefix.apart:
                self._forgo(waiting[0].prefix, budget)
                continue
            if not active:
                need = waiting[0].need + waiting[0].base
                raise ModelError(
                    f"keys and values of {need} tokens take {need * budget.bytes_per_token / 2**20:.0f} MiB, more than"
                    f" the {budget.bytes / 2**20:.0f} MiB that --memory allows"
                )
            self._close_up(active)
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
            ids = tuple(request.token_ids[:length])
            prefix = prefixes.setdefault(ids, _Prefix(ids))
            prefix.users += 1
            prefix.waiting += 1
            prefix.apart = bool(length) and prefix.users >= APART
            sequences.append(_Sequence(place, request, own_generator(request.key, seed), prefix))
        # Those that begin alike together, and the longest first: what comes later fits into every slot that gets free.
        longest: dict[_Prefix, int] = {}
        for sequence in sequences:
            longest[sequence.prefix] = max(longest.get(sequence.prefix, 0), sequence.need)
        return deque(
            sorted(sequences, key=lambda sequence: (-longest[sequence.prefix], sequence.prefix.ids, -sequence.need))
        )

    def _admit(self, waiting: deque[_Sequence], active: list[_Sequence], budget: Budget, most_sequences: int) -> None:
        """Give slots to those that wait, as long as there are any."""
        while waiting and len(active) < most_sequences:
            sequence = waiting[0]
            prefix = sequence.prefix
            if prefix.ids and prefix.slots is None:
                slots = budget.take(1, len(prefix.ids))
                if slots is None:
                    return
                self._feed_prefix(prefix, slots)
            apart = prefix.slots if prefix.apart else None
            fitting = (s for s in budget.taken if s.free and s.prefix is apart and s.width >= sequence.need)
            count = min(prefix.waiting if apart else len(waiting), most_sequences - len(active))
            free = next(fitting, None) or budget.take(count, sequence.need, apart)
            if free is None:
                return
            sequence.slots, sequence.slot = free, free.free.pop()
            if prefix.slots and not apart:
                free.copy(prefix.slots, 0, sequence.slot)
                sequence.fed = len(prefix.ids)
            prefix.waiting -= 1
            active.append(waiting.popleft())

    def _feed_prefix(self, prefix: _Prefix, slots: Slots) -> None:
        slots.free.clear()
        for start in range(0, len(prefix.ids), ROW_TOKENS):
            part = prefix.ids[start : start + ROW_TOKENS]
            positions = list(range(start, start + len(part)))
            self._forward(list(part), positions, Step([Stretch(0, len(part), slots, 0, start)], []), [0])
        prefix.slots = slots

    def _forgo(self, prefix: _Prefix, budget: Budget) -> None:
        """Let sequences compute their prefix themselves: there is no room for it beside a copy."""
        if prefix.slots:
            budget.give_back(prefix.slots)
        prefix.ids, prefix.slots = (), None

    def _step(self, active: Sequence[_Sequence]) -> None:
        """Feed each sequence its next token, or as much of its prompt as there is room for; then choose tokens."""
        single: dict[Slots, list[_Sequence]] = {}
        for sequence in active:
            if sequence.pending == 1:
                single.setdefault(sequence.slots, []).append(sequence)
        room = ROW_TOKENS - sum(map(len, single.values()))
        ids: list[int] = []
        positions: list[int] = []
        ends: list[tuple[int, _Sequence]] = []
        step = Step([], [])

        def feed(sequence: _Sequence, count: int) -> None:
            if sequence.pending == count:
                ends.append((len(ids) + count - 1, sequence))
            ids.extend(sequence.ids(count))
            first = sequence.base + sequence.fed
            positions.extend(range(first, first + count))
            sequence.fed += count

        for sequence in active:
            count = min(sequence.pending, room)
            if sequence.pending > 1 and count > 0:
                step.stretches.append(Stretch(len(ids), count, sequence.slots, sequence.slot, sequence.fed))
                feed(sequence, count)
                room -= count
        for slots, members in single.items():
            members.sort(key=lambda sequence: sequence.slot)
            step.columns.append(self._column(len(ids), slots, members))
            for sequence in members:
                feed(sequence, 1)
        logits = self._forward(ids, positions, step, [at for at, _ in ends] or [0])
        if ends:
            chosen = [sequence for _, sequence in ends]
            generations = [sequence.request.generation for sequence in chosen]
            drawn = choose(logits, generations, [sequence.generator for sequence in chosen])
            for sequence, token in zip(chosen, drawn, strict=True):
                sequence.new.append(token)

    def _column(self, start: int, slots: Slots, members: Sequence[_Sequence]) -> Column:
        device = self.module.device
        return Column(
            start,
            slots,
            places=torch.tensor([sequence.slot for sequence in members], device=device),
            positions=torch.tensor([sequence.fed for sequence in members], device=device),
            high=members[-1].slot + 1,
            width=max(sequence.fed for sequence in members) + 1,
        )

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
        slots, prefix = sequence.slots, sequence.prefix
        slots.free.append(sequence.slot)
        if len(slots.free) == slots.count:
            budget.give_back(slots)
        prefix.users -= 1
        if prefix.slots and not prefix.users:
            budget.give_back(prefix.slots)

    def _close_up(self, active: Sequence[_Sequence]) -> None:
        """Move sequences to the first of their slots: attention reads all up to the last that is used."""
        groups: dict[Slots, list[_Sequence]] = {}
        for sequence in active:
            groups.setdefault(sequence.slots, []).append(sequence)
        for slots, members in groups.items():
            members.sort(key=lambda sequence: sequence.slot)
            holes = sorted(place for place in slots.free if place < len(members))
            for hole, sequence in zip(holes, reversed(members), strict=False):
                slots.copy(slots, sequence.slot, hole)
                slots.free[slots.free.index(hole)] = sequence.slot
                sequence.slot = hole

    def _completion(self, sequence: _Sequence) -> Completion:
        return completion(self.tokenizer, sequence.new, sequence.request.generation, self.end_ids)
