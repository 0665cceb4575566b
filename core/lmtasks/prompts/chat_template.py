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
"""Switches of chat templates that are off unless asked for: a task wants an answer, and few tokens are for it."""
RESERVED = frozenset({"messages", "tools", "documents", "add_generation_prompt", "strftime_now", "raise_exception"})
"""Variables of chat templates that transformers or lmtasks itself fills."""
_PROBE_ANSWER = "lmtasks"
"""An answer by which the text that a chat template writes around answers is found."""
_DIRECTIVES = tuple(f"%{flag}{letter}" for flag in ("", "-") for letter in "aAbBcdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ")
"""Directives of strftime but "%%"; "-" leaves leading zeros out, where the system supports it."""


class Tokenizer(Protocol):
    """What rendering needs of a tokenizer; those of transformers have it."""

    chat_template: str | Mapping[str, str] | None

    @property
    def added_tokens_decoder(self) -> Mapping[int, object]:
        """The tokens beside the trained vocabulary, by id; each has `content` and `special`."""
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
    """A chat template with everything that decides what it writes."""

    source: str | None
    """In Jinja; None: the tokenizer has several and no default, and says so when it is used."""
    kwargs: Mapping[str, object] = field(default_factory=dict)
    """Values of its variables, such as {"enable_thinking": False}."""
    day: date | None = None
    """What it takes for today; None: it does not ask."""

    @property
    def record(self) -> dict[str, object]:
        """What a run and an adapter record of it."""
        return {"kwargs": dict(self.kwargs), "date": self.day.isoformat() if self.day else None}

    def on(self, day: date) -> ChatTemplate:
        """Return this template with another date, if it asks for one."""
        return replace(self, day=day) if self.day else self

    def render(self, tokenizer: Tokenizer, messages: Sequence[dict[str, str]], *, add_generation_prompt: bool) -> str:
        """Return a conversation as text, control tokens spelled out.

        Raises:
            PromptError: the template failed, which comes with the model and is code of its own.
        """
        source = self.source
        if source and self.day:
            # transformers tells templates the time of the call, and lets nobody tell them another.
            source = _clock_of(self.day) + source
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
        tokenizer: of the model.
        kwargs: values of the template's variables.
        defaults: values that hold where the template knows them and `kwargs` says nothing; they come before those of
            `THINKING_OFF`.
        day: what the template takes for today, if it asks; None: today.

    Raises:
        UsageError: there is no template, or it has no such variable.
    """
    given, stated = dict(kwargs or {}), tokenizer.chat_template
    if stated is None:
        if given:
            raise UsageError(f"this model has no chat template, and so no setting {next(iter(given))!r}")
        return None
    source = stated.get("default") if isinstance(stated, Mapping) else stated
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
        return ""  # the template refuses this conversation; the prompts of the task may be fine
    before = conversation.partition(_PROBE_ANSWER)[0]
    start = before.removeprefix(prompt) if before.startswith(prompt) else ""
    return start if any(marker in start for marker in MARKERS) else ""


def _clock_of(day: date) -> str:
    """Return a macro in Jinja that stands in for `strftime_now`, however a template calls it, and tells one date."""
    # "%Z" and the like are empty without a time zone; directives that the system lacks stay as they are.
    replacements = "".join(f"|replace({directive!r}, {day.strftime(directive)!r})" for directive in _DIRECTIVES)
    output = f"{{{{ format|replace('%%', '\0'){replacements}|replace('\0', '%') }}}}"
    # The empty output at the end keeps Jinja from trimming what the template begins with.
    return f"{{% macro strftime_now(format) %}}{output}{{% endmacro %}}{{{{ '' }}}}"


def _variables(source: str) -> set[str]:
    """Return the names that a template reads and that are not attributes of something else."""
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
