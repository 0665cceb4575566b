r"""Escapes control characters in text from data and models, for terminals and one-line messages.

Control characters become JSON escapes (`\u001b`), so that JSON remains valid and unchanged in meaning.
"""

from __future__ import annotations

import re

# C0, DEL and C1 but for tab and newline; separators that some programs end a line at; embeddings, overrides and
# isolates, which let text be shown in another order than it is stored; lone halves of surrogate pairs.
_CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u206f\ud800-\udfff"
_CONTROL = re.compile(f"[{_CONTROLS}]")
_CONTROL_OR_BREAK = re.compile(rf"[{_CONTROLS}\t\n]")
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def visible(text: str) -> str:
    """Return text with control characters escaped; tabs and newlines stay."""
    return _CONTROL.sub(_escape, text)


def one_line(text: str) -> str:
    """Return text with all control characters escaped, also tabs and newlines."""
    return _CONTROL_OR_BREAK.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return _SHORT.get(match[0]) or f"\\u{ord(match[0]):04x}"
