r"""Text from elsewhere, written so that it stays text: on a terminal, and in one line.

Control characters become the escapes that JSON has for them (`\u001b`), so that JSON in which they are
escaped afterwards is still JSON, and says the same.
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
    """Return text with its control characters shown as escapes; tabs and newlines stay."""
    return _CONTROL.sub(_escape, text)


def one_line(text: str) -> str:
    """Return text with all its control characters shown as escapes, tabs and newlines too."""
    return _CONTROL_OR_BREAK.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return _SHORT.get(match[0]) or f"\\u{ord(match[0]):04x}"
