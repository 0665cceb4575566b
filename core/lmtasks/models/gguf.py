"""The header of a GGUF file, checked before others read it: they believe every count and length that it states.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path

from lmtasks.errors import ModelError

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""By number of a type, how `struct` reads it."""
STRING, ARRAY = 8, 9
ALIGNMENT = 32
"""Alignment of the tensors' data in bytes, unless the file states another."""
MOST_ITEMS = 2**24
"""Maximum items of an array; the largest vocabularies have 2**18 tokens."""
MOST_DIMENSIONS = 8
MOST_LEVELS = 4
"""Maximum depth of arrays within arrays."""


class _Damaged(ValueError):
    """A damaged header; says what is wrong with it."""


class _Reader:
    """Reads a header from its beginning, and never beyond the end of the file."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.offset, self.order = content, 4, "<"

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        self.expect(count)
        self.offset += count
        return self.content[self.offset - count : self.offset]

    def expect(self, count: int) -> None:
        """Refuse a file that has not as many bytes left."""
        if count > len(self.content) - self.offset:
            raise _Damaged(
                f"it ends at byte {len(self.content):,}, {count - len(self.content) + self.offset:,} too early"
            )

    def number(self, kind: str) -> int:
        """Return a number by the letter of its type."""
        return int(struct.unpack(self.order + kind, self.take(struct.calcsize(self.order + kind)))[0])

    def text(self) -> str:
        """Return a string."""
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def value(self, kind: int, level: int = 0) -> int | None:
        """Pass over a value; return it where it is a whole number."""
        if kind in SCALARS:
            letter = SCALARS[kind]
            if letter in "fd":
                self.take(struct.calcsize(self.order + letter))
                return None
            return self.number(letter)
        if kind == STRING:
            self.take(self.number("Q"))
        elif kind == ARRAY and level < MOST_LEVELS:
            self._array(level)
        else:
            raise _Damaged(
                f"a value of an unknown type ({kind})" if kind != ARRAY else "its arrays are nested too deeply"
            )
        return None

    def _array(self, level: int) -> None:
        kind, count = self.number("I"), self.number("Q")
        if count > MOST_ITEMS:
            raise _Damaged(f"an array of {count:,} items; no vocabulary has more than {MOST_ITEMS:,}")
        if kind in SCALARS:
            self.expect(count * struct.calcsize(self.order + SCALARS[kind]))
            self.offset += count * struct.calcsize(self.order + SCALARS[kind])
            return
        for _ in range(count):
            self.value(kind, level + 1)


def check_gguf(path: Path) -> int:
    """Check that a GGUF file is complete and holds what its header states.

    Returns:
        How many weights it holds.

    Raises:
        ModelError: it is truncated, or states what cannot be; names what.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _check(_Reader(content))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: damaged, no whole GGUF file ({error}); fetch it again") from error


def _check(reader: _Reader) -> int:
    version = reader.number("I")
    if version & 0xFFFF == 0:  # written by a machine of the other byte order
        reader.order, reader.offset = ">", 4
        version = reader.number("I")
    if version not in (2, 3):
        raise _Damaged(f"it is of version {version}; expected 2 or 3")
    tensors, pairs = reader.number("Q"), reader.number("Q")
    reader.expect(12 * pairs)  # the least that each takes: a length and a type
    facts = {}
    for _ in range(pairs):
        name = reader.text()
        facts[name] = reader.value(reader.number("I"))
    layers = next((value for name, value in facts.items() if name.endswith(".block_count")), None)
    if layers is not None and not 1 <= layers <= tensors:
        raise _Damaged(f"it states {layers:,} layers, and {tensors:,} tensors")
    reader.expect(24 * tensors)  # the least that each takes: two lengths, a type and an offset
    return _check_tensors(reader, tensors, facts.get("general.alignment") or ALIGNMENT)


def _check_tensors(reader: _Reader, count: int, alignment: int) -> int:
    """Check that the data of all tensors lies within the file; return how many weights they have."""
    from gguf.constants import GGML_QUANT_SIZES

    sizes = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}
    weights, ends = 0, [0]
    for _ in range(count):
        name, dimensions = reader.text(), reader.number("I")
        if dimensions > MOST_DIMENSIONS:
            raise _Damaged(f'the tensor "{name:.60}" has {dimensions:,} dimensions')
        size = math.prod(reader.number("Q") for _ in range(dimensions))
        kind, start = reader.number("I"), reader.number("Q")
        if kind not in sizes:
            raise _Damaged(f'the tensor "{name:.60}" is of an unknown type ({kind})')
        block, bytes_per_block = sizes[kind]
        weights += size
        ends.append(start + size // block * bytes_per_block)
    reader.offset = -(-reader.offset // alignment) * alignment if 0 < alignment <= 2**20 else reader.offset
    reader.expect(max(ends))
    return weights
