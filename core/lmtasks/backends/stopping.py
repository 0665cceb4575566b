"""Text of generated tokens: decoded, ended by stop strings, told while it grows."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Sequence
from typing import Literal
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from lmtasks.backends.base import Completion
from lmtasks.reasoning import FORMATS, MARKERS, ReasoningParser, may_open
from lmtasks.task import SamplingParams

_left_out: WeakKeyDictionary[PreTrainedTokenizerBase, frozenset[int]] = WeakKeyDictionary()
"""By tokenizer, the special tokens that texts are decoded without; empty where it has no marker of reasoning."""


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return the text of tokens; control tokens are left out, but for markers of reasoning."""
    if tokenizer not in _left_out:
        special = {id: str(token) for id, token in tokenizer.added_tokens_decoder.items() if token.special}
        kept = {id for id, text in special.items() if text in MARKERS}
        _left_out[tokenizer] = frozenset(special.keys() - kept) if kept else frozenset()
    if left_out := _left_out[tokenizer]:
        kept_ids = [id for id in ids if id not in left_out]
        return str(tokenizer.decode(kept_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def first_stop(text: str, stop: Sequence[str]) -> int | None:
    """Return where the first of some strings begins in a text."""
    places = [at for at in (text.find(string) for string in stop) if at >= 0]
    return min(places, default=None)


def tail_length(strings: Sequence[str]) -> int:
    """Return how many of the last tokens can hold one of some strings that the newest of them completed."""
    # A string spans at most as many tokens as it has bytes; one more holds a character's first half.
    return max((len(text.encode()) for text in strings), default=0) + 4


_CLOSING_TAIL = tail_length([format.closing for format in FORMATS]) + 16  # some have words in between


class StopCheck:
    """Tells whether a growing completion holds a stop string behind its reasoning."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str], reasoning: ReasoningParser) -> None:
        """Take what decodes tokens, what ends an answer, and what divides reasoning from it."""
        self._tokenizer, self._stop, self._reasoning = tokenizer, stop, reasoning
        self._tail = tail_length(stop)
        self._start: int | None = None
        """Where the answer's tokens begin; None: not known yet."""
        self._closed: int | None = None
        """Tokens up to the end of the last block of reasoning and the white space behind it; None: it has not ended."""
        self._reasoned = False

    def is_met(self, new: Sequence[int]) -> bool:
        """Return whether the newest token has completed a stop string; to be called for every token."""
        if not self._stop:
            return False
        if self._start is None:
            self._start = self._find_start(new)
        if self._start is None:
            return False
        tail = max(self._start, len(new) - self._tail)
        text = decode(self._tokenizer, new[tail:])
        if self._reasoned and tail == self._start:
            text = text.lstrip()  # a token may hold white space and the beginning of the answer
        return first_stop(text, self._stop) is not None

    def _find_start(self, new: Sequence[int]) -> int | None:
        if self._reasoned and self._closed is None:
            # The end of reasoning is looked for in the newest tokens alone: a thought may have thousands.
            tail = decode(self._tokenizer, new[-_CLOSING_TAIL:])
            if not any(format.end.search(tail) for format in FORMATS):
                return None
        parsed = self._reasoning.parse(decode(self._tokenizer, new))
        if parsed.start != 0:
            self._reasoned = True
            if parsed.start is None:
                self._closed = None
            elif self._closed is None or not parsed.answer:
                self._closed = len(new)
        if parsed.start is None or may_open(parsed.answer):
            return None
        return self._closed or 0


def streamed(text: str, stop: Sequence[str], reasoning: ReasoningParser) -> str:
    """Return the part of a growing completion's answer that nothing to come can take back."""
    parsed = reasoning.settled(text)
    if parsed is None:
        return ""
    at = first_stop(parsed.answer, stop)
    return _settled(parsed.answer, stop) if at is None else parsed.answer[:at]


def _settled(text: str, stop: Sequence[str]) -> str:
    # A character whose last bytes are still to come decodes to U+FFFD.
    text = text.rstrip("\ufffd")
    longest = max(map(len, stop), default=0)
    for length in range(min(longest, len(text)), 0, -1):
        if any(string.startswith(text[-length:]) for string in stop):
            return text[:-length]
    return text


def completion(
    tokenizer: PreTrainedTokenizerBase,
    new_ids: Sequence[int],
    generation: SamplingParams,
    end_ids: Collection[int],
    reasoning: ReasoningParser,
) -> Completion:
    """Return the completion of generated tokens, which may go on behind its end."""
    new_ids = new_ids[: generation.max_new_tokens]  # others of the batch may have been allowed more
    end = next((at for at, token in enumerate(new_ids) if token in end_ids), None)
    count = len(new_ids) if end is None else end + 1
    text = decode(tokenizer, new_ids[:end])
    parsed = reasoning.parse(text)
    stop_at = _stop_in(text, generation.stop, reasoning)
    finish: Literal["stop", "length"] = "length" if end is None and stop_at is None else "stop"
    # A row that met its stop string was padded while others went on: count what it took to get there.
    while stop_at is not None and count > 1:
        if _stop_in(decode(tokenizer, new_ids[: count - 1]), generation.stop, reasoning) != stop_at:
            break
        count -= 1
    answer = parsed.answer if stop_at is None else text[parsed.start or 0 : stop_at]
    thought = 0
    if parsed.start is None:
        thought = count
    elif parsed.start > 0:
        # The fewest tokens whose text has all of the reasoning and its markers.
        whole = len(text[: parsed.start].rstrip())

        def has_all(length: int) -> bool:
            part = decode(tokenizer, new_ids[:length])
            start = reasoning.parse(part).start
            return start is not None and len(part[:start].rstrip()) >= whole

        thought = bisect.bisect_left(range(count), True, key=has_all)
    return Completion(answer, count, finish, parsed.reasoning, thought)


def _stop_in(text: str, stop: Sequence[str], reasoning: ReasoningParser) -> int | None:
    """Return where the first stop string of the answer begins in the whole text."""
    parsed = reasoning.parse(text)
    if parsed.start is None:
        return None
    at = first_stop(parsed.answer, stop)
    return None if at is None else parsed.start + at
