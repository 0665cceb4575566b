"""A model's chat template, with the date and the settings that it is rendered with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from types import MappingProxyType
from typing import Protocol, cast

from lmtasks.errors import PromptError, UsageError
from lmtasks.reasoning import MARKERS

THINKING_OFF: Mapping[str, object] = {"enable_thinking": False, "thinking": False}
"""Switches of chat templates that are off by default: a task needs an answer, within few tokens."""
RESERVED = frozenset({"messages", "tools", "documents", "add_generation_prompt", "strftime_now", "raise_exception"})
"""Variables of chat templates that transformers or lmtasks sets itself."""
_PROBE_ANSWER = "lmtasks"
"""An answer by which the text that a chat template writes around answers is found."""
_DIRECTIVES = tuple(f"%{flag}{letter}" for flag in ("", "-") for letter in "aAbBcdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ")
"""Directives of strftime except "%%"; "-" omits leading zeros, if the system supports it."""


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that rendering needs."""

    chat_template: str | Mapping[str, str] | None

    @property
    def added_tokens_decoder(self) -> Mapping[int, object]:
        """The tokens added to the trained vocabulary, by id; each has `content` and `special`."""
        ...

    def apply_chat_template(
        self,
        conversation: list[dict[str, str]],
        *,
        chat_template: str | None = None,
        tokenize: bool,
        add_generation_prompt: bool,
        **kwargs: object,
    ) -> object:
        """Return the conversation as text, with control tokens spelled out."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return token ids; control tokens that the text spells become control tokens."""
        ...

    def decode(self, token_ids: list[int]) -> str:
        """Return the text of token ids, control tokens spelled out."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTemplate:
    """A chat template with the settings and the date that it is rendered with."""

    source: str | None
    """The template in Jinja; None: the tokenizer has several and no default, and raises when one is used."""
    kwargs: Mapping[str, object] = field(default_factory=dict)
    """Values of its variables, such as {"enable_thinking": False}."""
    day: date | None = None
    """The date that it takes for today; None: it does not use the date."""

    @property
    def record(self) -> dict[str, object]:
        """The settings and the date, as a run and an adapter record them."""
        return {"kwargs": dict(self.kwargs), "date": self.day.isoformat() if self.day else None}

    def on(self, day: date) -> ChatTemplate:
        """Return this template with another date, if it uses one."""
        return replace(self, day=day) if self.day else self

    def render(self, tokenizer: Tokenizer, messages: Sequence[dict[str, str]], *, add_generation_prompt: bool) -> str:
        """Return a conversation as text, control tokens spelled out.

        Raises:
            PromptError: the template, which is code that comes with the model, failed.
        """
        source = self.source
        if source and self.day:
            # transformers gives templates the time of the call, with no option to change it.
            source = _strftime_macro(self.day) + source
        try:
            text = tokenizer.apply_chat_template(
                list(messages),
                chat_template=source,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **self.kwargs,
            )
        except Exception as error:
            raise PromptError(f"the model's chat template failed: {type(error).__name__}: {error}") from error
        return cast(str, text)


def chat_template_of(
    tokenizer: Tokenizer,
    kwargs: Mapping[str, object] | None = None,
    *,
    defaults: Mapping[str, object] = MappingProxyType({}),
    day: date | None = None,
) -> ChatTemplate | None:
    """Return a tokenizer's chat template with its settings; None: it has none.

    Args:
        tokenizer: the model's tokenizer.
        kwargs: values of the template's variables.
        defaults: values for variables of the template that `kwargs` does not set; they override `THINKING_OFF`.
        day: the date that the template takes for today, if it uses one; None: today.

    Raises:
        UsageError: there is no template, or it has no such variable.
    """
    given, templates = dict(kwargs or {}), tokenizer.chat_template
    if templates is None:
        if given:
            raise UsageError(f"this model has no chat template, and so no setting {next(iter(given))!r}")
        return None
    source = templates.get("default") if isinstance(templates, Mapping) else templates
    known = _variables(source or "")
    for name in given:
        if name not in known:
            offered = ", ".join(sorted(known & THINKING_OFF.keys())) or "no switch for thinking"
            raise UsageError(f'the chat template of this model has no variable "{name}" that can be set ({offered})')
    values = {name: value for name, value in {**THINKING_OFF, **defaults}.items() if name in known}
    dated = "strftime_now" in (source or "")
    return ChatTemplate(source=source, kwargs=values | given, day=(day or date.today()) if dated else None)


def answer_start(tokenizer: Tokenizer, template: ChatTemplate | None) -> str:
    """Return the reasoning markers that a chat template writes before an answer and not in the prompt, or ""."""
    if template is None:
        return ""
    asked = [{"role": "user", "content": "?"}]
    answered = [*asked, {"role": "assistant", "content": _PROBE_ANSWER}]
    try:
        prompt = template.render(tokenizer, asked, add_generation_prompt=True)
        conversation = template.render(tokenizer, answered, add_generation_prompt=False)
    except PromptError:
        return ""  # the template refuses this conversation, but may accept the task's prompts
    before = conversation.partition(_PROBE_ANSWER)[0]
    start = before.removeprefix(prompt) if before.startswith(prompt) else ""
    return start if any(marker in start for marker in MARKERS) else ""


def _strftime_macro(day: date) -> str:
    """Return a Jinja macro that replaces `strftime_now` and formats one fixed date."""
    # "%Z" and similar directives are empty without a time zone; unsupported directives stay as they are.
    replacements = "".join(f"|replace({directive!r}, {day.strftime(directive)!r})" for directive in _DIRECTIVES)
    output = f"{{{{ format|replace('%%', '\0'){replacements}|replace('\0', '%') }}}}"
    # The empty output at the end keeps Jinja from trimming the beginning of the template.
    return f"{{% macro strftime_now(format) %}}{output}{{% endmacro %}}{{{{ '' }}}}"


def _variables(source: str) -> set[str]:
    """Return the names of the variables that a template reads."""
    import jinja2

    try:
        tokens = [token for token in jinja2.Environment().lex(source) if token[1] != "whitespace"]  # noqa: S701
    except jinja2.TemplateSyntaxError:
        return set()  # rendering it raises the error
    return {
        name
        for before, (_, kind, name) in zip([None, *tokens], tokens, strict=False)
        if kind == "name" and name not in RESERVED and (before is None or before[2] != ".")
    }
