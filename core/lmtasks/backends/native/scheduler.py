"""The scheduler: the order in which sequences begin, and the slots of the KV cache that they get."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Generic

from lmtasks.backends.native.config import EngineConfig
from lmtasks.backends.native.kv_cache import KVBlock, KVBudget
from lmtasks.backends.native.prefix_sharing import assign_prefixes
from lmtasks.backends.native.sequence import SequenceState, SequenceT, SharedPrefix
from lmtasks.backends.native.stats import BlockStats, EngineStats, StepCounts
from lmtasks.errors import ModelError, option


class Scheduler(Generic[SequenceT]):
    """Sequences that wait or run, and the KV blocks that they use."""

    def __init__(
        self,
        budget: KVBudget,
        compute_prefix: Callable[[SharedPrefix, KVBlock], None],
        *,
        max_batch: int,
        config: EngineConfig,
    ) -> None:
        """Create a scheduler without sequences.

        Args:
            budget: memory for keys and values.
            compute_prefix: fills the first slot of a block with a prefix.
            max_batch: sequences that run at once.
            config: all other limits.
        """
        self.budget, self.max_batch, self.config = budget, max_batch, config
        self.waiting: deque[SequenceT] = deque()
        self.running: list[SequenceT] = []
        self.counts = StepCounts()
        self._compute_prefix = compute_prefix
        self._arrived: list[SequenceT] = []
        self._arrivals = 0
        self._blocks: tuple[BlockStats, ...] = ()

    @property
    def has_unfinished(self) -> bool:
        """Whether any sequence waits or runs."""
        return bool(self._arrived or self.waiting or self.running)

    def add(self, sequence: SequenceT) -> None:
        """Add a sequence, which begins in one of the next steps.

        Raises:
            ModelError: it alone needs more memory than the budget has.
        """
        needed = sequence.total_tokens
        if needed > self.budget.total_tokens:
            raise ModelError(
                f"keys and values of {needed} tokens take {needed * self.budget.bytes_per_token / 2**20:.0f} MiB, more"
                f" than the {self.budget.bytes / 2**20:.0f} MiB that {option('kv_cache_gib')} allows"
            )
        self._arrived.append(sequence)

    def abort(self, sequence: SequenceT) -> None:
        """Drop a sequence that waits or runs, and free what it holds."""
        if sequence in self.running:
            self.release(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
            sequence.prefix.waiting -= 1
            sequence.prefix.users -= 1
            self._free_unused(sequence.prefix)
        else:
            self._arrived.remove(sequence)

    def schedule(self) -> list[SequenceT]:
        """Start waiting sequences as long as there are slots, and return all that run."""
        if self._arrived:
            self._plan_arrived()
        while self.waiting and len(self.running) < self.max_batch:
            sequence = self.waiting[0]
            similar = count_similar(self.waiting, self.max_batch - len(self.running), self.config.max_padding)
            if self._allocate_slot(sequence, similar):
                self.running.append(self.waiting.popleft())
            elif self.running:
                break
            elif not self._free_idle_prefixes(keep=sequence.prefix):
                self._unshare_prefix(sequence.prefix)
        return self.running

    def compact(self) -> None:
        """Move sequences into few blocks, and to their first slots: attention reads all up to the last one used."""
        groups = self._by_block()
        for block in sorted(groups, key=lambda block: len(groups[block])):
            other = find_slots_for_merge(groups[block], groups, self.config.max_padding)
            if other:
                for sequence in groups[block]:
                    _move(sequence, other, other.free_slots.pop())
                groups[other] += groups.pop(block)
                self.budget.free(block)
        for block, members in groups.items():
            members.sort(key=lambda sequence: sequence.slot)
            holes = sorted(slot for slot in block.free_slots if slot < len(members))
            for hole, sequence in zip(holes, reversed(members), strict=False):
                block.free_slots[block.free_slots.index(hole)] = sequence.slot
                _move(sequence, block, hole)
            longest = max(sequence.slot_tokens for sequence in members)
            block.shrink_to_fit(len(members), longest, self.config.max_padding)

    def release(self, sequence: SequenceT) -> None:
        """Free the slot of a sequence that runs."""
        self.running.remove(sequence)
        block, prefix = sequence.block, sequence.prefix
        block.free_slots.append(sequence.slot)
        if len(block.free_slots) == block.count:
            self.budget.free(block)
        prefix.users -= 1
        self._free_unused(prefix)

    def record_step(self) -> None:
        """Count a step, and keep how full its blocks are."""
        self.counts.steps += 1
        self._blocks = tuple(
            BlockStats(
                slots=block.count,
                width=block.width,
                sequences=len(members),
                longest=max(sequence.slot_tokens for sequence in members),
                tokens=sum(sequence.computed for sequence in members),
            )
            for block, members in self._by_block().items()
        )

    def stats(self) -> EngineStats:
        """Return what was done so far, and what the KV cache holds now."""
        budget = self.budget
        return EngineStats(
            counts=self.counts,
            running=len(self.running),
            waiting=len(self.waiting) + len(self._arrived),
            blocks=self._blocks,
            reserved_tokens=budget.reserved_tokens,
            reserved_bytes=budget.reserved_tokens * budget.bytes_per_token,
            peak_kv_bytes=budget.peak_tokens * budget.bytes_per_token,
        )

    def _by_block(self) -> dict[KVBlock, list[SequenceT]]:
        groups: dict[KVBlock, list[SequenceT]] = {}
        for sequence in self.running:
            groups.setdefault(sequence.block, []).append(sequence)
        return groups

    def _plan_arrived(self) -> None:
        """Decide prefixes and order of the sequences that have arrived, and of those whose prefix is not begun."""
        for sequence in self._arrived:
            sequence.arrival = self._arrivals
        self._arrivals += 1
        begun = [sequence for sequence in self.waiting if not sequence.prefix.is_untouched]
        movable = [sequence for sequence in self.waiting if sequence.prefix.is_untouched] + self._arrived
        prefixes = {sequence.prefix for sequence in (*begun, *self.running)}
        assign_prefixes(movable, [prefix for prefix in prefixes if prefix.block])
        self.waiting = deque(in_order([*begun, *movable]))
        self._arrived = []

    def _allocate_slot(self, sequence: SequenceT, similar: int) -> bool:
        """Give a sequence a free slot, or a new block for as many as are similar; return whether there was room."""
        prefix = sequence.prefix
        is_hit = prefix.block is not None
        if prefix.ids and prefix.block is None:
            block = self.budget.allocate(1, len(prefix.ids))
            if block is None:
                return False
            block.free_slots.clear()
            try:
                self._compute_prefix(prefix, block)
            except BaseException:
                self.budget.free(block)
                raise
            prefix.block = block
        shared = prefix.block if prefix.shares_kv else None
        fitting = (
            block
            for block in self.budget.blocks
            if block.free_slots and block.prefix is shared and block.width >= sequence.slot_tokens
        )
        block = min(fitting, key=lambda block: block.width, default=None)
        block = block or self.budget.allocate(similar, sequence.slot_tokens, shared)
        if block is None:
            return False
        sequence.block, sequence.slot = block, block.free_slots.pop()
        if prefix.block and not prefix.shares_kv:
            block.copy(prefix.block, 0, sequence.slot)
            sequence.computed = len(prefix.ids)
        if is_hit:
            self.counts.prefix_hits += 1
            self.counts.prefix_hit_tokens += len(prefix.ids)
        prefix.waiting -= 1
        self._free_unused(prefix)
        return True

    def _free_unused(self, prefix: SharedPrefix) -> None:
        """Free the block of a prefix that nobody reads any more, or of which all have their copy."""
        if prefix.block and not (prefix.users if prefix.shares_kv else prefix.waiting):
            self.budget.free(prefix.block)
            prefix.block = None

    def _free_idle_prefixes(self, keep: SharedPrefix) -> bool:
        """Free the prefixes that waiting sequences have, but for one; return whether there were any.

        Only while nothing runs: they are computed again when their sequences begin.
        """
        idle = {sequence.prefix for sequence in self.waiting if sequence.prefix.block} - {keep}
        for prefix in idle:
            if prefix.block:
                self.budget.free(prefix.block)
                prefix.block = None
        return bool(idle)

    def _unshare_prefix(self, prefix: SharedPrefix) -> None:
        """Let sequences compute their prefix themselves: there is no room for it beside a copy."""
        if prefix.block:
            self.budget.free(prefix.block)
        prefix.ids, prefix.block, prefix.shares_kv = (), None, False


def in_order(sequences: Sequence[SequenceT]) -> list[SequenceT]:
    """Return sequences in the order in which they begin.

    First come, first served. Of those that came together, the ones with the same prefix follow each other, the longest
    first: what comes later then fits into their slots.
    """
    longest: dict[tuple[int, SharedPrefix], int] = {}
    for sequence in sequences:
        group = sequence.arrival, sequence.prefix
        longest[group] = max(longest.get(group, 0), sequence.slot_tokens)
    return sorted(
        sequences,
        key=lambda sequence: (
            sequence.arrival,
            -longest[sequence.arrival, sequence.prefix],
            sequence.prefix.ids,
            sequence.prefix.adapter or "",
            -sequence.slot_tokens,
        ),
    )


def count_similar(waiting: deque[SequenceT], most: int, max_padding: int) -> int:
    """Count the first waiting sequence and those next to it, up to `most`, that need little padding in one block."""
    first = waiting[0]
    padding = 0
    for count, other in enumerate(islice(waiting, most)):
        unused = first.slot_tokens - other.slot_tokens
        padding += unused
        same = other.prefix is first.prefix or not (other.prefix.shares_kv or first.prefix.shares_kv)
        if not same or unused < 0 or padding > max_padding:
            return count
    return min(len(waiting), most)


def find_slots_for_merge(
    members: Sequence[SequenceState], blocks: Iterable[KVBlock], max_padding: int
) -> KVBlock | None:
    """Return a block other than that of some sequences which has slots for them all and needs little padding."""
    current, needed = members[0].block, max(sequence.slot_tokens for sequence in members)
    fitting = (
        other
        for other in blocks
        if other is not current
        and other.prefix is current.prefix
        and len(other.free_slots) >= len(members)
        and 0 <= len(members) * (other.width - needed) <= max_padding
    )
    return min(fitting, key=lambda other: other.width, default=None)


def _move(sequence: SequenceState, block: KVBlock, slot: int) -> None:
    block.copy(sequence.block, sequence.slot, slot)
    sequence.block, sequence.slot = block, slot
