"""A tokenizer without a vocabulary, for tests and for checks of plugins."""

from __future__ import annotations

from collections.abc import Mapping

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A chat template like that of many chat models (ChatML)."""


class CharacterTokenizer:
    """A tokenizer whose token ids are code points: the text of a prompt can be read back from its ids."""

    def __init__(self, chat_template: str | None = None) -> None:
        """Create a tokenizer with a chat template, or without one for the plain form of base models."""
        self.chat_template: str | Mapping[str, str] | None = chat_template

    @property
    def added_tokens_decoder(self) -> Mapping[int, object]:
        """No added tokens."""
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
        """Return the conversation rendered by the chat template."""
        import jinja2

        template = jinja2.Template(str(chat_template or self.chat_template))
        return template.render(messages=conversation, add_generation_prompt=add_generation_prompt, **kwargs)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the code points of a text."""
        return [ord(character) for character in text]

    def decode(self, token_ids: list[int]) -> str:
        """Return the text of code points."""
        return "".join(map(chr, token_ids))
