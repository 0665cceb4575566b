"""Control tokens that data may spell, and how to keep it from spelling them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from lmtasks.errors import PromptError
from lmtasks.prompts.chat_template import Tokenizer
from lmtasks.reasoning import MARKERS


class ControlTokens:
    """The strings that a tokenizer turns into control tokens, and how to keep data from spelling them.

    They are its special tokens and those of its other added tokens that the chat template writes (Qwen's "<think>").
    Other added tokens are ordinary vocabulary, such as Gemma's runs of spaces and HTML tags. Reasoning markers count
    if the template contains them: templates remove the text before one from an answer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        template = tokenizer.chat_template or ""
        templates = "".join(template.values()) if isinstance(template, Mapping) else template
        strings: list[str] = []
        self._ids: set[int] = set()
        # Matched on normalized text (other width or case), or too short to split: no text search finds them all.
        self._needs_tokenizing = False
        self._tokenizer = tokenizer
        for id, token in tokenizer.added_tokens_decoder.items():
            content = str(getattr(token, "content", ""))
            if not content.isspace() and (getattr(token, "special", False) or content in templates):
                strings.append(content)
                self._ids.add(id)
                self._needs_tokenizing |= len(content) < 2 or bool(getattr(token, "normalized", False))
        strings += [marker for marker in sorted(MARKERS) if marker in templates]
        longest_first = sorted({string for string in strings if len(string) > 1}, key=lambda text: (-len(text), text))
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def insert_marker(self, text: str, marker: str) -> str:
        """Return a text with the marker after the first character of everything that spells a control token.

        Raises:
            PromptError: a control token is a single character, which cannot be split.
        """
        pieces, start, search = [], 0, 0
        while self._pattern and (match := self._pattern.search(text, search)):
            # The search continues within the match: control tokens may contain or overlap each other.
            search = match.start() + 1
            pieces.append(text[start:search])
            start = search
        pieces.append(text[start:])
        if self._needs_tokenizing and self._spells(pieces):
            pieces = list(text)
            if self._spells(pieces):
                raise PromptError("the data holds a character that this tokenizer reads as a control token")
        return marker.join(pieces)

    def _spells(self, pieces: Sequence[str]) -> bool:
        """Return whether the tokenizer finds a control token in any of the pieces."""
        encode = self._tokenizer.encode
        return any(not self._ids.isdisjoint(encode(piece, add_special_tokens=False)) for piece in pieces)
