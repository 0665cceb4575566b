"""Text of generated tokens: decoded, ended by stop strings, told while it grows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

from lmtasks.inference.door import Completion
from lmtasks.task import Generation


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return the text of tokens, control tokens left out."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def first_stop(text: str, stop: Sequence[str]) -> int | None:
    """Return where the first of some strings begins in a text."""
    places = [at for at in (text.find(string) for string in stop) if at >= 0]
    return min(places, default=None)


def tail_length(stop: Sequence[str]) -> int:
    """Return how many of the last tokens can hold a stop string that the newest of them completed."""
    # A stop string spans at most as many tokens as it has bytes; one more holds a character's first half.
    return max((len(text.encode()) for text in stop), default=0) + 4


def settled(text: str, stop: Sequence[str]) -> str:
    """Return the part of a growing text that nothing to come can take back."""
    # A character whose last bytes are still to come decodes to U+FFFD.
    text = text.rstrip("\ufffd")
    longest = max(map(len, stop), default=0)
    for length in range(min(longest, len(text)), 0, -1):
        if any(string.startswith(text[-length:]) for string in stop):
            return text[:-length]
    return text


def completion(
    tokenizer: PreTrainedTokenizerBase, new_ids: Sequence[int], generation: Generation, end_ids: Collection[int]
) -> Completion:
    """Return the completion of generated tokens, which may go on behind its end."""
    new_ids = new_ids[: generation.max_new_tokens]  # others of the batch may have been allowed more
    end = next((at for at, token in enumerate(new_ids) if token in end_ids), None)
    count = len(new_ids) if end is None else end + 1
    text = decode(tokenizer, new_ids[:end])
    at = first_stop(text, generation.stop)
    if at is None:
        return Completion(text, count, "length" if end is None else "stop")
    # A row that met its stop string was padded while others went on: count what it took to get there.
    while count > 1 and first_stop(decode(tokenizer, new_ids[: count - 1]), generation.stop) == at:
        count -= 1
    return Completion(text[:at], count, "stop")
