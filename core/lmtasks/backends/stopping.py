"""Text of generated tokens: decoded, ended by stop strings, and streamed while it grows."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Sequence
from typing import Literal
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from lmtasks.backends.base import Completion
from lmtasks.reasoning import FORMATS, MARKERS, ReasoningParser, may_open
from lmtasks.task import SamplingParams

_skipped_ids: WeakKeyDictionary[PreTrainedTokenizerBase, frozenset[int]] = WeakKeyDictionary()
"""By tokenizer, the special tokens left out of decoded texts; empty where none is a marker of reasoning."""


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return the text of tokens; control tokens are left out, markers of reasoning excepted."""
    if tokenizer not in _skipped_ids:
        special = {id: str(token) for id, token in tokenizer.added_tokens_decoder.items() if token.special}
        kept = {id for id, text in special.items() if text in MARKERS}
        _skipped_ids[tokenizer] = frozenset(special.keys() - kept) if kept else frozenset()
    if skipped := _skipped_ids[tokenizer]:
        kept_ids = [id for id in ids if id not in skipped]
        return str(tokenizer.decode(kept_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def first_stop(text: str, stop: Sequence[str]) -> int | None:
    """Return the index at which the first of some strings begins in a text; None: it holds none."""
    starts = [start for start in (text.find(string) for string in stop) if start >= 0]
    return min(starts, default=None)


def stop_window(strings: Sequence[str]) -> int:
    """Return how many of the last tokens can hold one of some strings that the newest token has completed."""
    # A string spans at most as many tokens as it has bytes; one more holds a character's first half.
    return max((len(text.encode()) for text in strings), default=0) + 4


_CLOSING_WINDOW = stop_window([format.closing for format in FORMATS]) + 16  # some have words in between


class StopCheck:
    """The check whether a growing completion holds a stop string behind its reasoning."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str], reasoning: ReasoningParser) -> None:
        """Create the check of one completion.

        Args:
            tokenizer: decodes its tokens.
            stop: strings that end the answer.
            reasoning: separates reasoning from the answer.
        """
        self._tokenizer, self._stop, self._reasoning = tokenizer, stop, reasoning
        self._window = stop_window(stop)
        self._start: int | None = None
        """Index of the answer's first token; None: not known yet."""
        self._closed: int | None = None
        """Tokens up to the end of the last block of reasoning and the white space behind it; None: it has not ended."""
        self._reasoned = False

    def is_met(self, new: Sequence[int]) -> bool:
        """Return whether the newest token has completed a stop string; must be called for every token."""
        if not self._stop:
            return False
        if self._start is None:
            self._start = self._find_start(new)
        if self._start is None:
            return False
        tail = max(self._start, len(new) - self._window)
        text = decode(self._tokenizer, new[tail:])
        if self._reasoned and tail == self._start:
            text = text.lstrip()  # a token may hold white space and the beginning of the answer
        return first_stop(text, self._stop) is not None

    def _find_start(self, new: Sequence[int]) -> int | None:
        if self._reasoned and self._closed is None:
            # Only the newest tokens are searched for the end of reasoning, which may have thousands.
            tail = decode(self._tokenizer, new[-_CLOSING_WINDOW:])
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


def streamable_answer(text: str, stop: Sequence[str], reasoning: ReasoningParser) -> str:
    """Return the part of a growing completion's answer that later tokens cannot change."""
    parsed = reasoning.settled(text)
    if parsed is None:
        return ""
    stop_index = first_stop(parsed.answer, stop)
    return streamable_prefix(parsed.answer, stop) if stop_index is None else parsed.answer[:stop_index]


def streamable_prefix(text: str, stop: Sequence[str]) -> str:
    """Return a text without an end that may be half a character, or the beginning of a stop string."""
    # A character whose last bytes are still to come decodes to U+FFFD.
    text = text.rstrip("\ufffd")
    longest = max(map(len, stop), default=0)
    for length in range(min(longest, len(text)), 0, -1):
        if any(string.startswith(text[-length:]) for string in stop):
            return text[:-length]
    return text


def finish_completion(
    tokenizer: PreTrainedTokenizerBase,
    new_ids: Sequence[int],
    generation: SamplingParams,
    end_ids: Collection[int],
    reasoning: ReasoningParser,
) -> Completion:
    """Return the completion of generated tokens.

    Args:
        tokenizer: decodes them.
        new_ids: the generated tokens; those behind the completion's end are left out.
        generation: its stop strings and the most tokens.
        end_ids: tokens that end a completion.
        reasoning: separates reasoning from the answer.
    """
    new_ids = new_ids[: generation.max_new_tokens]  # others of the batch may have been allowed more
    end = next((index for index, token in enumerate(new_ids) if token in end_ids), None)
    count = len(new_ids) if end is None else end + 1
    text = decode(tokenizer, new_ids[:end])
    parsed = reasoning.parse(text)
    stop_index = _stop_in(text, generation.stop, reasoning)
    finish_reason: Literal["stop", "length"] = "length" if end is None and stop_index is None else "stop"
    # generate pads a row that met its stop string while others go on: count the tokens up to there.
    while stop_index is not None and count > 1:
        if _stop_in(decode(tokenizer, new_ids[: count - 1]), generation.stop, reasoning) != stop_index:
            break
        count -= 1
    answer = parsed.answer if stop_index is None else text[parsed.start or 0 : stop_index]
    reasoning_tokens = 0
    if parsed.start is None:
        reasoning_tokens = count
    elif parsed.start > 0:
        # The fewest tokens whose text has all of the reasoning and its markers.
        whole = len(text[: parsed.start].rstrip())

        def has_all(length: int) -> bool:
            part = decode(tokenizer, new_ids[:length])
            start = reasoning.parse(part).start
            return start is not None and len(part[:start].rstrip()) >= whole

        reasoning_tokens = bisect.bisect_left(range(count), True, key=has_all)
    return Completion(answer, count, finish_reason, parsed.reasoning, reasoning_tokens)


def _stop_in(text: str, stop: Sequence[str], reasoning: ReasoningParser) -> int | None:
    """Return the index at which the answer's first stop string begins in the whole text; None: there is none."""
    parsed = reasoning.parse(text)
    if parsed.start is None:
        return None
    index = first_stop(parsed.answer, stop)
    return None if index is None else parsed.start + index
