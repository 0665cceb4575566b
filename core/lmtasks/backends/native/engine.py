"""Generation without padding: prompts packed in one row, answers in slots that are filled again as they get free."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmtasks.backends.base import Completion, Continuation, OnText, Request
from lmtasks.backends.native.attention import Column, Step, Stretch
from lmtasks.backends.native.kv_cache import Budget, Slots
from lmtasks.backends.native.multi_lora import Routes
from lmtasks.backends.native.sequence import (
    Answer,
    Found,
    Growing,
    Prefix,
    Text,
    count_alike,
    guess,
    in_order,
    room_elsewhere,
    with_prefixes,
)
from lmtasks.backends.sampling import choose, own_generator
from lmtasks.backends.stopping import StopCheck, completion, decode, streamed
from lmtasks.errors import ModelError, option
from lmtasks.models.adapter_files import adapter_name

ROW_TOKENS = 2048
"""That pass through the model at once, at most."""
ROW_LOGITS = 2**24
"""Computed at once, at most, where every token of a text is measured: tokens times the vocabulary."""
LOGIT_ROWS = 64
"""Of logits that are made float32 at once."""
MOST_SEQUENCES = 64
"""Under way at once, unless asked otherwise."""
MOST_MEASURED = 32
"""Texts that are measured at once, unless asked otherwise."""
FEW = 2
"""Sequences under way up to which tokens are guessed: more of them fill the hardware without."""


class Engine:
    """Answers requests with a model whose attention is `lmtasks.backends.native.attention.attend`."""

    def __init__(
        self,
        module: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Sequence[int],
        *,
        memory_bytes: int,
        bytes_per_token: int,
        routes: Routes | None = None,
    ) -> None:
        """Take a model, and what it works with.

        Args:
            module: from `engine_copy`.
            tokenizer: of the model.
            end_ids: tokens that end an answer.
            memory_bytes: that keys and values may take.
            bytes_per_token: that they do take.
            routes: those of the module, where adapters answer beside the base.
        """
        self.module, self.tokenizer, self.end_ids = module, tokenizer, frozenset(end_ids)
        self.memory_bytes, self.bytes_per_token, self.routes = memory_bytes, bytes_per_token, routes

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
        prefixes = with_prefixes([(request.token_ids, request.adapter) for request in requests])
        answers = [
            Answer(
                place,
                list(request.token_ids),
                len(request.token_ids),
                len(request.token_ids) + request.generation.max_new_tokens - 1,
                prefix,
                generation=request.generation,
                generator=own_generator(request.key, seed),
                reasoning=request.reasoning,
                stop_check=StopCheck(self.tokenizer, request.generation.stop, request.reasoning),
            )
            for place, (request, prefix) in enumerate(zip(requests, prefixes, strict=True))
        ]
        budget, waiting = Budget(self.memory_bytes, self.bytes_per_token), in_order(answers)
        active: list[Answer] = []
        while waiting or active:
            self._admit(waiting, active, budget, most_sequences)
            self._close_up(active, budget)
            if len(active) <= FEW and all(answer.pending == 1 for answer in active):
                for answer in active:
                    guess(answer)
            done = []
            logits, asked = self._step(active)
            chosen = iter(self._choose(logits, asked))
            for answer, count in asked:
                if self._take(answer, [next(chosen) for _ in range(count)], on_text):
                    done.append(answer)
            if done:
                active = [answer for answer in active if answer not in done]
                for answer in done:
                    self._leave(answer, budget)
                yield [(answer.place, self._completion(answer)) for answer in done]

    @torch.inference_mode()
    def measure(
        self, continuations: Sequence[Continuation], *, most_sequences: int = MOST_MEASURED
    ) -> Iterator[list[tuple[int, float]]]:
        """Measure texts behind prompts, the longest first, as `LanguageModel.loglikelihood` says.

        Raises:
            ModelError: a single one needs more memory than there is.
        """
        prefixes = with_prefixes([(item.token_ids, item.adapter) for item in continuations])
        texts = []
        for place, (item, prefix) in enumerate(zip(continuations, prefixes, strict=True)):
            ids = [*item.token_ids, *item.answer_ids]
            texts.append(Text(place, ids, len(item.token_ids), len(ids) - 1, prefix))
        budget, waiting = Budget(self.memory_bytes, self.bytes_per_token), in_order(texts)
        active: list[Text] = []
        while waiting or active:
            self._admit(waiting, active, budget, most_sequences)
            logits, asked = self._step(active)
            parts = torch.split_with_sizes(logits, [count for _, count in asked])
            for (text, count), own in zip(asked, parts, strict=True):
                end = text.base + text.fed + 1
                following = torch.tensor(text.ids[end - count : end], device=own.device)[:, None]
                for at in range(0, count, LOGIT_ROWS):
                    exact = own[at : at + LOGIT_ROWS].float()
                    likely = exact.gather(-1, following[at : at + LOGIT_ROWS])[:, 0] - exact.logsumexp(-1)
                    text.logprob += float(likely.cpu().double().sum())
            done = [text for text in active if not text.pending]
            if done:
                active = [text for text in active if text.pending]
                for text in done:
                    self._leave(text, budget)
                yield [(text.place, text.logprob) for text in done]

    def _admit(self, waiting: deque[Found], active: list[Found], budget: Budget, most_sequences: int) -> None:
        """Give slots to those that wait, as long as there are any."""
        while waiting and len(active) < most_sequences:
            alike = count_alike(waiting, most_sequences - len(active))
            if self._give_slot(waiting[0], alike, budget):
                active.append(waiting.popleft())
            elif active:
                return
            elif waiting[0].prefix.ids and not waiting[0].prefix.apart:
                self._forgo(waiting[0].prefix, budget)
            else:
                need = waiting[0].need + waiting[0].base
                raise ModelError(
                    f"keys and values of {need} tokens take {need * budget.bytes_per_token / 2**20:.0f} MiB, more than"
                    f" the {budget.bytes / 2**20:.0f} MiB that {option('memory')} allows"
                )

    def _give_slot(self, sequence: Growing, alike: int, budget: Budget) -> bool:
        """Give a sequence a free slot, or take slots for as many as are alike; tell if there was room."""
        prefix = sequence.prefix
        if prefix.ids and prefix.slots is None:
            slots = budget.take(1, len(prefix.ids))
            if slots is None:
                return False
            self._feed_prefix(prefix, slots)
        apart = prefix.slots if prefix.apart else None
        fitting = (s for s in budget.taken if s.free and s.prefix is apart and s.width >= sequence.need)
        free = min(fitting, key=lambda s: s.width, default=None) or budget.take(alike, sequence.need, apart)
        if free is None:
            return False
        sequence.slots, sequence.slot = free, free.free.pop()
        if prefix.slots and not apart:
            free.copy(prefix.slots, 0, sequence.slot)
            sequence.fed = len(prefix.ids)
        prefix.waiting -= 1
        if prefix.slots and not apart and not prefix.waiting:
            budget.give_back(prefix.slots)  # all have their copy
            prefix.slots = None
        return True

    def _feed_prefix(self, prefix: Prefix, slots: Slots) -> None:
        slots.free.clear()
        for start in range(0, len(prefix.ids), ROW_TOKENS):
            part = prefix.ids[start : start + ROW_TOKENS]
            positions = list(range(start, start + len(part)))
            step = Step([Stretch(0, len(part), slots, 0, start)], [])
            self._forward(list(part), positions, step, [0], [(prefix.adapter, 0, len(part))])
        prefix.slots = slots

    def _forgo(self, prefix: Prefix, budget: Budget) -> None:
        """Let sequences compute their prefix themselves: there is no room for it beside a copy."""
        if prefix.slots:
            budget.give_back(prefix.slots)
        prefix.ids, prefix.slots = (), None

    def _step(self, active: Sequence[Found]) -> tuple[torch.Tensor, list[tuple[Found, int]]]:
        """Feed each sequence its next token, or as much of what is known of it as there is room for.

        Returns:
            Logits, shape [places, vocabulary], behind the last token of a prompt and each one after it; and whose
            they are: sequences, and how many are theirs.
        """
        single: dict[Slots, list[Found]] = {}
        for sequence in active:
            if sequence.pending == 1:
                single.setdefault(sequence.slots, []).append(sequence)
        room = ROW_TOKENS - sum(map(len, single.values()))
        logits = max(1, ROW_LOGITS // self.module.config.get_text_config().vocab_size)
        ids: list[int] = []
        positions: list[int] = []
        keep: list[int] = []
        asked: list[tuple[Found, int]] = []
        adapters: list[tuple[str | None, int, int]] = []
        step = Step([], [])

        def feed(sequence: Found, count: int) -> None:
            first = sequence.base + sequence.fed
            wanted = min(count, first + count - sequence.prompt + 1)
            if wanted > 0:
                keep.extend(range(len(ids) + count - wanted, len(ids) + count))
                asked.append((sequence, wanted))
            adapters.append((sequence.prefix.adapter, len(ids), count))
            ids.extend(sequence.ids[first : first + count])
            positions.extend(range(first, first + count))
            sequence.fed += count

        for sequence in active:
            before = max(0, sequence.prompt - 1 - sequence.base - sequence.fed)
            count = min(sequence.pending, room, before + max(0, logits - len(keep)))
            if sequence.pending > 1 and count > 0:
                step.stretches.append(Stretch(len(ids), count, sequence.slots, sequence.slot, sequence.fed))
                feed(sequence, count)
                room -= count
        for slots, members in single.items():
            members.sort(key=lambda sequence: sequence.slot)
            step.columns.append(self._column(len(ids), slots, members))
            for sequence in members:
                feed(sequence, 1)
        found = self._forward(ids, positions, step, keep or [0], adapters)
        return found[: len(keep)], asked

    def _column(self, start: int, slots: Slots, members: Sequence[Growing]) -> Column:
        device = self.module.device
        return Column(
            start,
            slots,
            places=torch.tensor([sequence.slot for sequence in members], device=device),
            positions=torch.tensor([sequence.fed for sequence in members], device=device),
            high=members[-1].slot + 1,
            width=max(sequence.fed for sequence in members) + 1,
        )

    def _forward(
        self,
        ids: list[int],
        positions: list[int],
        step: Step,
        keep: list[int],
        adapters: Sequence[tuple[str | None, int, int]],
    ) -> torch.Tensor:
        """Return logits at some places of a row, shape [places, vocabulary].

        Args:
            ids: of the row's tokens.
            positions: in their sequences.
            step: whose they are.
            keep: the places.
            adapters: that answer, each with its first place and how many there are.
        """
        device = self.module.device
        if self.routes is not None:
            routed: dict[str, list[int]] = {}
            for adapter, start, count in adapters:
                if adapter is not None:
                    routed.setdefault(adapter_name(adapter), []).extend(range(start, start + count))
            self.routes.clear()
            self.routes |= {name: torch.tensor(places, device=device) for name, places in routed.items()}
        output = self.module(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.tensor([positions], device=device),
            use_cache=False,
            logits_to_keep=torch.tensor(keep, device=device),
            lmtasks_step=step,
        )
        logits: torch.Tensor = output.logits[0]
        return logits

    def _choose(self, logits: torch.Tensor, asked: Sequence[tuple[Answer, int]]) -> list[int]:
        """Return what follows at each place."""
        if not asked:
            return []
        rows = [answer for answer, count in asked for _ in range(count)]
        return choose(
            logits,
            [answer.generation for answer in rows],
            [answer.generator for answer in rows],
            [answer.ids for answer in rows],
        )

    def _take(self, answer: Answer, chosen: Sequence[int], on_text: OnText | None) -> bool:
        """Give an answer what was chosen behind its last token and behind each that was guessed; tell if it is done.

        What was guessed counts as long as it is what was chosen.
        """
        guessed = answer.ids[len(answer.ids) - answer.guessed :]
        del answer.ids[len(answer.ids) - answer.guessed :]
        answer.guessed = 0
        done = False
        for token, expected in zip(chosen, [*guessed, None], strict=True):
            answer.ids.append(token)
            done = self._is_done(answer, on_text)
            if done or token != expected:
                break
        answer.fed = len(answer.ids) - 1 - answer.base
        return done

    def _is_done(self, answer: Answer, on_text: OnText | None) -> bool:
        new = answer.new
        if on_text:
            on_text(streamed(decode(self.tokenizer, new), answer.generation.stop, answer.reasoning))
        if new[-1] in self.end_ids or len(new) >= answer.generation.max_new_tokens:
            return True
        return answer.stop_check.is_met(new)

    def _leave(self, sequence: Growing, budget: Budget) -> None:
        slots, prefix = sequence.slots, sequence.prefix
        slots.free.append(sequence.slot)
        if len(slots.free) == slots.count:
            budget.give_back(slots)
        prefix.users -= 1
        if prefix.slots and not prefix.users:
            budget.give_back(prefix.slots)

    def _close_up(self, active: Sequence[Growing], budget: Budget) -> None:
        """Move few sequences together, and each to the first of its slots: attention reads all up to the last used."""
        groups: dict[Slots, list[Growing]] = {}
        for sequence in active:
            groups.setdefault(sequence.slots, []).append(sequence)
        for slots in sorted(groups, key=lambda slots: len(groups[slots])):
            other = room_elsewhere(groups[slots], groups)
            if other:
                for sequence in groups[slots]:
                    self._move(sequence, other, other.free.pop())
                groups[other] += groups.pop(slots)
                budget.give_back(slots)
        for slots, members in groups.items():
            members.sort(key=lambda sequence: sequence.slot)
            holes = sorted(place for place in slots.free if place < len(members))
            for hole, sequence in zip(holes, reversed(members), strict=False):
                slots.free[slots.free.index(hole)] = sequence.slot
                self._move(sequence, slots, hole)
            slots.fit(len(members), max(sequence.need for sequence in members))

    def _move(self, sequence: Growing, slots: Slots, slot: int) -> None:
        slots.copy(sequence.slots, sequence.slot, slot)
        sequence.slots, sequence.slot = slots, slot

    def _completion(self, answer: Answer) -> Completion:
        return completion(self.tokenizer, answer.new, answer.generation, self.end_ids, answer.reasoning)
