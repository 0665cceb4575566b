"""Text as characters: what UTF-8 can hold, and a tokenizer without a vocabulary."""

from __future__ import annotations

from collections.abc import Mapping

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Such as many chat models have."""


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
