"""Markdown in which text from elsewhere stays text: no heading, table, link or HTML comes of it.

CommonMark, with the tables, strikethrough and formulas of GitHub.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from lmtasks.escaping import one_line, visible

# What means something within a line, and no more: reports are read as they are, too.
_MARKUP = re.compile(
    r"""
    [`*<|~$]
    | \\ (?=[!-/:-@\[-`{-~]|\Z)           # before a letter it is a backslash anyway
    | & (?=[#A-Za-z])
    | \] (?=[(\[])
    | (?<![^\W_])_ | _(?![^\W_])          # "_" means nothing between letters or digits
    | (?<!\S)\#
    """,
    re.VERBOSE,
)
_OPENING = re.compile(r"^(\d*)([-+>=.)\[])")
"""What begins a list, a quotation, a rule, a heading's underline or the definition of a link."""


def inline(text: str) -> str:
    """Return text that is shown as it is behind other text: in a heading, a list item, a paragraph, a table's cell."""
    return _MARKUP.sub(r"\\\g<0>", one_line(text).strip())


def paragraph(text: str) -> str:
    """Return text that is shown as it is in a paragraph that begins with it."""
    return _OPENING.sub(r"\1\\\2", inline(text)) or _nothing(text)


def code(text: str) -> str:
    """Return text as a code span: between more backticks than stand together anywhere in it."""
    shown = one_line(text)
    if not shown.strip():
        return _nothing(shown)
    fence = "`" * (_longest_backticks(shown) + 1)
    # CommonMark takes one space off either end where both have one.
    space = " " if "`" in (shown[0], shown[-1]) or shown[0] == shown[-1] == " " else ""
    return f"{fence}{space}{shown}{space}{fence}"


def indented(text: str) -> str:
    """Return text as an indented code block; a paragraph and an empty line have to stand before it."""
    shown = visible(text) if text.strip() else _nothing(text)
    return "\n".join(f"    {line}" for line in shown.split("\n"))


def fenced(text: str) -> str:
    """Return text as a fenced code block: between more backticks than stand together anywhere in it."""
    fence = "`" * max(3, _longest_backticks(text) + 1)
    return f"{fence}\n{visible(text)}\n{fence}"


def table(
    header: Sequence[str], rows: Iterable[Sequence[object]], *, right: Collection[int] = (), spans: Collection[int] = ()
) -> str:
    """Return a table.

    Args:
        header: names of the columns.
        rows: cells, any values.
        right: columns to be aligned to the right.
        spans: columns whose cells are code spans.
    """
    lines = [
        f"| {' | '.join(map(inline, header))} |",
        f"|{'|'.join('--:' if column in right else '---' for column in range(len(header)))}|",
    ]
    for row in rows:
        cells = [(_code_cell if column in spans else inline)(str(cell)) for column, cell in enumerate(row)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def facts(values: Mapping[str, object]) -> str:
    """Return a list of names with their values."""
    return "\n".join(f"- {inline(name)}: {inline(str(value))}" for name, value in values.items())


def _nothing(text: str) -> str:
    return "(blank)" if text else "(empty)"


def _code_cell(text: str) -> str:
    # Renderers disagree on a backslash before a pipe in code.
    return inline(text) if "\\" in one_line(text) else code(text).replace("|", "\\|")


def _longest_backticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
