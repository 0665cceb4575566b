"""Text as characters: what UTF-8 can hold, and a tokenizer without a vocabulary."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Such as many chat models have."""

_DEFAULT_IGNORABLE = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Unicode's Default_Ignorable_Code_Point, unchanged since Unicode 5.1 but for U+180F: zero-width and bidi marks, soft
hyphens, variation selectors, Hangul fillers, tags."""
# Invisible too: control characters, braille without dots, a note head of nothing, marks of annotations and hieroglyphs.
_HIDDEN = rf"\x00-\x1f\x7f-\x9f\u2800\ufff9-\ufffb\U00013430-\U0001343f\U0001d159{_DEFAULT_IGNORABLE}"
_VISIBLE = re.compile(rf"[^\s{_HIDDEN}]")
# Some control characters are white space: tabs, line ends.
_INVISIBLE = re.compile(rf"(?:(?!\s)[{_HIDDEN}])+")


def is_blank(text: str) -> bool:
    """Return whether a text shows nothing: it is empty, or holds white space and invisible characters alone.

    Combining marks and emoji are visible, and so are the Arabic signs that Unicode counts among format characters.
    """
    return _VISIBLE.search(text) is None


def folded(text: str) -> str:
    """Return what two texts share that a reader would take for the same.

    Invisible characters, width and other compatible forms (NFKC), composition, case, and how much space stands between
    words and around them, do not count.
    """
    wide = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
    # Case folding leaves some marks in another order.
    return unicodedata.normalize("NFKC", " ".join(wide.casefold().split()))


def as_utf8(text: str) -> str:
    """Return text whose lone halves of surrogate pairs are question marks.

    JSON and Python can escape them, but UTF-8 cannot hold them, and no tokenizer takes them.
    """
    return text.encode("utf-8", "replace").decode("utf-8")


class CharacterTokenizer:
    """A tokenizer whose ids are code points: what a prompt holds can be read back from its ids."""

    def __init__(self, chat_template: str | None = None) -> None:
        """Take a chat template, or none for a base model's plain form."""
        self.chat_template: str | Mapping[str, str] | None = chat_template

    @property
    def added_tokens_decoder(self) -> Mapping[int, object]:
        """None."""
        return {}

    def apply_chat_template(
        self,
        conversation: list[dict[str, str]],
        *,
        chat_template: str | None = None,
        tokenize: bool,
        add_generation_prompt: bool,
        **kwargs: object,
    ) -> object:
        """Return the conversation by the template."""
        import jinja2

        template = jinja2.Template(str(chat_template or self.chat_template))
        return template.render(messages=conversation, add_generation_prompt=add_generation_prompt, **kwargs)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return code points."""
        return [ord(character) for character in text]

    def decode(self, token_ids: list[int]) -> str:
        """Return the text of code points."""
        return "".join(map(chr, token_ids))
