"""What is suspicious in the examples of a data set: copies, damage, markup, words that stand for nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lmtasks.data.diagnostics import Diagnostic, Level
from lmtasks.data.overlap import input_key
from lmtasks.reasoning import ReasoningParser
from lmtasks.task import Example, Task

ODD: Mapping[str, tuple[str, re.Pattern[str]]] = {
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
"""Odd characters and strings: a short name, what messages call it, and what finds it."""
NOTHING = frozenset({"nan", "none", "null", "n/a", "na", "#n/a", "nil", "<na>", "nat", "-", "--", "?", "tbd", "todo"})
"""Words that often stand for a missing value, in lower case."""


def _odd_kinds(texts: Iterable[str]) -> set[str]:
    """Return the short names of what is odd in some texts: those of `ODD`, and of words that stand for nothing."""
    kinds: set[str] = set()
    for text in texts:
        kinds.update(kind for kind, (_, pattern) in ODD.items() if pattern.search(text))
        if text.strip().casefold() in NOTHING:
            kinds.add("missing-value-word")
        if not unicodedata.is_normalized("NFC", text):
            kinds.add("not-nfc")
    return kinds


_SAID = {kind: said for kind, (said, _) in ODD.items()} | {
    "missing-value-word": 'a word that stands for a missing value, such as "nan" or "N/A", as its whole text',
    "reasoning-in-reference": (
        "reasoning in a reference, such as <think>...</think>, which no prediction matches: it is taken from outputs"
    ),
    "not-nfc": "text whose characters are not composed (not in Unicode's form NFC), which no score finds equal to NFC",
}
"""What messages call the kinds of `_odd_kinds`."""
_NOTES = ("control-token", "not-nfc", "html")
"""Kinds that are no more than good to know."""


def repeated(examples: Mapping[str, Example], splits: Mapping[str, str | None]) -> Iterator[Diagnostic]:
    """Yield what is wrong with examples that ask the same, within a split and across splits.

    Args:
        examples: by the place they stand at.
        splits: by the same places.
    """
    groups: dict[object, list[str]] = {}
    for where, example in examples.items():
        if example.inputs:  # data for `score` may have none: its examples do not ask the same
            groups.setdefault(input_key(example), []).append(where)
    copies = [places for places in groups.values() if len(places) > 1]
    across = [places for places in copies if len({splits[where] for where in places}) > 1]
    differing = [places for places in copies if len({examples[where].references for where in places}) > 1]
    again = sum(len(places) - 1 for places in copies)
    for kind, found, count, said in (
        ("repeated-example", copies, again, "asking the same as another"),
        ("different-answers", differing, len(differing), "standing there again with other answers"),
        ("split-overlap", across, len(across), "standing in more than one split"),
    ):
        if found:
            first, second, *_ = found[0]
            message = f"{in_rows(count)} {said} (first: {first} and {second.rpartition(', ')[2]})"
            yield Diagnostic(level="warning", kind=kind, message=message, count=count)


def odd_texts(examples: Mapping[str, Example]) -> Iterator[Diagnostic]:
    """Yield what is odd in inputs and references: characters, markup, words that stand for nothing, reasoning."""
    places: dict[str, list[str]] = {}
    for where, example in examples.items():
        kinds = _odd_kinds([*example.inputs.values(), *example.references])
        if any(ReasoningParser().parse(text).start != 0 for text in example.references):
            kinds.add("reasoning-in-reference")
        for kind in kinds:
            places.setdefault(kind, []).append(where)
    for kind, found in sorted(places.items()):
        level: Level = "note" if kind in _NOTES else "warning"
        message = f"{in_rows(len(found))} with {_SAID[kind]} (first: {found[0]})"
        yield Diagnostic(level=level, kind=kind, message=message, count=len(found))


def odd_answers(task: Task, examples: Mapping[str, Example]) -> Iterator[Diagnostic]:
    """Yield what is odd in answers beside inputs: references that are copies of an input, inputs that are all one."""
    copies = [
        where
        for where, example in examples.items()
        if any(text and text in example.inputs.values() for text in example.references)
    ]
    if copies:
        message = f"{in_rows(len(copies))} with a reference that is a copy of an input (first: {copies[0]})"
        yield Diagnostic(level="warning", kind="copied-reference", message=message, count=len(copies))
    for name, field in task.fields.items():
        texts = [example.inputs.get(name) for example in examples.values()]
        if len(texts) > 1 and len(set(texts)) == 1 and texts[0] and field.required:
            message = f'field "{name}" holds the same text in every row'
            yield Diagnostic(level="warning", kind="constant-input", message=message)


def no_references(split: str | None, examples: Sequence[Example]) -> Iterator[Diagnostic]:
    """Yield what follows where no example of a split has references."""
    if examples and not any(example.references for example in examples):
        inside = "" if split is None else f' of split "{split}"'
        message = (
            f"none of {in_rows(len(examples))}{inside} has references: `run` would give no scores, `score` and `train`"
            " would refuse it"
        )
        yield Diagnostic(level="warning", kind="no-references", message=message, count=len(examples))


def in_rows(count: int) -> str:
    """Return a number of rows for a message."""
    return "1 row" if count == 1 else f"{count} rows"
