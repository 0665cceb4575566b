"""Suspicious examples of a data set: copies, damage, markup, words that stand for nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lmtasks.data.diagnostics import Diagnostic, Level
from lmtasks.data.overlap import input_key
from lmtasks.reasoning import ReasoningParser
from lmtasks.task import Example, Task

SUSPICIOUS: Mapping[str, tuple[str, re.Pattern[str]]] = {
    "control-character": ("control characters", re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")),
    "replacement-character": ("U+FFFD, left by a wrong decoding", re.compile("\ufffd")),
    "invisible-character": (
        "invisible characters (zero-width, soft hyphen, direction)",
        re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"),
    ),
    "mojibake": (
        "UTF-8 that was decoded as Latin-1",
        re.compile(
            "Ã[\u0080-\u00bf\u0152-\u017e\u0192\u2013-\u2022\u20ac]|â€[\u0080-\u00bf\u0152-\u2122]|Â[\u00a0-\u00bf]"
        ),
    ),
    "html": (
        "HTML tags or entities",
        re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{2,5});|</?(?:p|br|div|span|b|i|a|li|ul|td|tr|script)(?:\s[^<>]{0,200})?/?>"),
    ),
    "control-token": (
        "control tokens of language models (they stay text)",
        re.compile(r"<\|[a-z_]{2,30}\|>|\[/?INST\]|</?s>|<(?:start|end)_of_turn>|</?think>"),
    ),
    "escaped-line-break": (r"line breaks written as \n", re.compile(r"(?<!\\)\\n")),
}
"""Suspicious characters and strings: kind, description for messages, pattern."""
MISSING_VALUE_WORDS = frozenset(
    {"nan", "none", "null", "n/a", "na", "#n/a", "nil", "<na>", "nat", "-", "--", "?", "tbd", "todo"}
)
"""Words that often stand for a missing value, in lower case."""


def _suspicious_kinds(texts: Iterable[str]) -> set[str]:
    """Return what is suspicious in texts: kinds of `SUSPICIOUS`, missing-value words, text that is not NFC."""
    kinds: set[str] = set()
    for text in texts:
        kinds.update(kind for kind, (_, pattern) in SUSPICIOUS.items() if pattern.search(text))
        if text.strip().casefold() in MISSING_VALUE_WORDS:
            kinds.add("missing-value-word")
        if not unicodedata.is_normalized("NFC", text):
            kinds.add("not-nfc")
    return kinds


_DESCRIPTIONS = {kind: said for kind, (said, _) in SUSPICIOUS.items()} | {
    "missing-value-word": 'a word that stands for a missing value, such as "nan" or "N/A", as its whole text',
    "reasoning-in-reference": (
        "reasoning in a reference, such as <think>...</think>, which predictions never have: it is removed from outputs"
    ),
    "not-nfc": "text that is not in Unicode's form NFC, which scores do not treat as equal to NFC",
}
"""Descriptions of the kinds of `_suspicious_kinds` for messages."""
_NOTE_KINDS = ("control-token", "not-nfc", "html")
"""Kinds that are notes, not warnings."""


def repeated_examples(examples: Mapping[str, Example], splits: Mapping[str, str | None]) -> Iterator[Diagnostic]:
    """Yield warnings about examples with the same inputs, within a split and across splits.

    Args:
        examples: examples by file and line.
        splits: split of each example, by the same keys.
    """
    groups: dict[object, list[str]] = {}
    for where, example in examples.items():
        if example.inputs:  # data for `score` may have none: those are not repeated
            groups.setdefault(input_key(example), []).append(where)
    copies = [group for group in groups.values() if len(group) > 1]
    across = [group for group in copies if len({splits[where] for where in group}) > 1]
    differing = [group for group in copies if len({examples[where].references for where in group}) > 1]
    again = sum(len(group) - 1 for group in copies)
    for kind, matches, count, description in (
        ("repeated-example", copies, again, "with the same inputs as another"),
        ("different-answers", differing, len(differing), "repeated with other references"),
        ("split-overlap", across, len(across), "in more than one split"),
    ):
        if matches:
            first, second, *_ = matches[0]
            message = f"{rows_text(count)} {description} (first: {first} and {second.rpartition(', ')[2]})"
            yield Diagnostic(level="warning", kind=kind, message=message, count=count)


def suspicious_texts(examples: Mapping[str, Example]) -> Iterator[Diagnostic]:
    """Yield what is suspicious in inputs and references: characters, markup, missing-value words, reasoning."""
    rows_by_kind: dict[str, list[str]] = {}
    for where, example in examples.items():
        kinds = _suspicious_kinds([*example.inputs.values(), *example.references])
        if any(ReasoningParser().parse(text).start != 0 for text in example.references):
            kinds.add("reasoning-in-reference")
        for kind in kinds:
            rows_by_kind.setdefault(kind, []).append(where)
    for kind, rows in sorted(rows_by_kind.items()):
        level: Level = "note" if kind in _NOTE_KINDS else "warning"
        message = f"{rows_text(len(rows))} with {_DESCRIPTIONS[kind]} (first: {rows[0]})"
        yield Diagnostic(level=level, kind=kind, message=message, count=len(rows))


def suspicious_answers(task: Task, examples: Mapping[str, Example]) -> Iterator[Diagnostic]:
    """Yield what is suspicious in inputs and references together: copied references, constant inputs."""
    copies = [
        where
        for where, example in examples.items()
        if any(text and text in example.inputs.values() for text in example.references)
    ]
    if copies:
        message = f"{rows_text(len(copies))} with a reference that is a copy of an input (first: {copies[0]})"
        yield Diagnostic(level="warning", kind="copied-reference", message=message, count=len(copies))
    for name, field in task.fields.items():
        texts = [example.inputs.get(name) for example in examples.values()]
        if len(texts) > 1 and len(set(texts)) == 1 and texts[0] and field.required:
            message = f'field "{name}" holds the same text in every row'
            yield Diagnostic(level="warning", kind="constant-input", message=message)


def no_references(split: str | None, examples: Sequence[Example]) -> Iterator[Diagnostic]:
    """Yield a warning if no example of a split has references."""
    if examples and not any(example.references for example in examples):
        inside = "" if split is None else f' of split "{split}"'
        message = (
            f"none of {rows_text(len(examples))}{inside} has references: `run` would give no scores,"
            " `score` and `train` would refuse it"
        )
        yield Diagnostic(level="warning", kind="no-references", message=message, count=len(examples))


def rows_text(count: int) -> str:
    """Return a number of rows as text: "1 row"."""
    return "1 row" if count == 1 else f"{count} rows"
