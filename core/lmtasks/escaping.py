r"""Text from elsewhere, written so that it stays text: on a terminal, in one line, in Markdown.

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
# What CommonMark and GitHub give a meaning to within a line. "_" has none between letters or digits.
_MARKUP = re.compile(r"[\\`*\[\]<>&|~$#]|(?<![^\W_])_|_(?![^\W_])")
# What begins a list, a heading's underline or a rule.
_OPENING = re.compile(r"^(\d*)([-+=.)])")


def visible(text: str) -> str:
    """Return text with its control characters shown as escapes; tabs and newlines stay."""
    return _CONTROL.sub(_escape, text)


def one_line(text: str) -> str:
    """Return text with all its control characters shown as escapes, tabs and newlines too."""
    return _CONTROL_OR_BREAK.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return _SHORT.get(match[0]) or f"\\u{ord(match[0]):04x}"


def markdown_inline(text: str) -> str:
    """Return text as Markdown that shows it as it is, within a paragraph, a heading, a list item or a table's cell."""
    return _OPENING.sub(r"\1\\\2", _MARKUP.sub(r"\\\g<0>", one_line(text).strip()))


def markdown_code(text: str) -> str:
    """Return text as a code span: between more backticks than stand together anywhere in it."""
    shown = one_line(text)
    if not shown.strip():
        return f"({'empty' if not shown else 'blank'})"
    fence = "`" * (_longest_backticks(shown) + 1)
    # CommonMark takes one space off either end where both have one.
    space = " " if "`" in (shown[0], shown[-1]) or " " == shown[0] == shown[-1] else ""
    return f"{fence}{space}{shown}{space}{fence}"


def markdown_code_cell(text: str) -> str:
    """Return text as a code span in a table's cell."""
    # Renderers disagree on a backslash before a pipe within code.
    return markdown_inline(text) if "\\" in one_line(text) else markdown_code(text).replace("|", "\\|")


def markdown_indented(text: str) -> str:
    """Return text as an indented code block; a paragraph and an empty line have to stand before it."""
    return "\n".join(f"    {line}" for line in visible(text).split("\n"))


def markdown_fenced(text: str) -> str:
    """Return text as a fenced code block: between more backticks than stand together anywhere in it."""
    fence = "`" * max(3, _longest_backticks(text) + 1)
    return f"{fence}\n{visible(text)}\n{fence}"


def _longest_backticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
