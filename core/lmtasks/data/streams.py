"""Opens data files as streams of bytes and decompresses them while they are read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lmtasks.errors import DataError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".xz": "xz"}
"""Suffix of a compressed file, after the suffix of its format, and the compression that it stands for."""
MAX_LINE = 64 * 2**20
"""Bytes of the longest line (characters of a CSV cell) that is read; a longer one is a damaged or hostile file."""
_MAX_RATIO, _ALWAYS_ALLOWED = 200, 64 * 2**20
"""Largest ratio of decompressed to compressed size, checked beyond so many bytes; text has 3 to 20."""
_MAGIC = {
    re.compile(rb"\x1f\x8b"): "gzip",
    re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"): "zstd",  # pzstd begins with a skippable frame
    re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)"): "bzip2",  # a block, or the end of an empty stream
    re.compile(rb"\xfd7zXZ\0"): "xz",
    re.compile(rb"PK\x03\x04"): "zip",
    re.compile(rb"PAR1\x15"): "Parquet",
}
"""First bytes of file formats; no text can begin with them."""
_UTF16 = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def suffixes(path: Path) -> tuple[str, str]:
    """Return the suffixes of format and compression in lower case: (".jsonl", ".gz"); "" for one that is missing."""
    last = path.suffix.lower()
    return (Path(path.stem).suffix.lower(), last) if last in COMPRESSIONS else (last, "")


def check_file(path: Path, what: str) -> None:
    """Check that a path is a regular file.

    Args:
        path: the file.
        what: what the file is, for messages: "data file".

    Raises:
        DataError: the file does not exist, or is a folder, pipe, socket or device.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path}: no such {what}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be looked up: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(mode):
        raise DataError(f"{path}: a folder; expected a {what}")
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: not a regular file; save its content as a {what}, which can be read twice and hashed")


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a text file for reading, decompressed if its suffix stands for a compression.

    Raises:
        DataError: the file cannot be read, is damaged, is UTF-16, or has another compression than its suffix says.
    """
    compression = COMPRESSIONS.get(suffixes(path)[1])
    try:
        with path.open("rb") as file:
            _check_magic(path, file.peek(16), compression)
            with _decompressed(path, file, compression) as stream:
                _check_encoding(path, stream.peek(4))
                yield stream
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        # Only errors of the operating system have a number; the others come from decompressors.
        if compression and not getattr(error, "errno", None):
            raise DataError(f"{path}: damaged {compression} data: {error}") from error
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_lines(path: Path, stream: BinaryIO) -> Iterator[bytes]:
    r"""Yield the lines of a stream, each with its final "\n".

    Raises:
        DataError: a line is longer than `MAX_LINE`.
    """
    number = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise line_too_long(path, number)
        yield line


def line_too_long(path: Path, line: int) -> DataError:
    """Return the error for a line longer than `MAX_LINE`."""
    return DataError(f"{path}, line {line}: longer than {MAX_LINE // 2**20} MiB; expected a record on a line")


def _decompressed(path: Path, file: io.BufferedReader, compression: str | None) -> io.BufferedReader:
    if compression is None:
        return file
    openers: dict[str, Callable[[Any], Any]] = {
        "gzip": gzip.open,
        "zstd": _open_zstd,
        "bzip2": lambda file: _ConcatenatedStreams(file, bz2.BZ2Decompressor),
        "xz": lambda file: _ConcatenatedStreams(file, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)),
    }
    return io.BufferedReader(_LimitedDecompression(path, openers[compression](file)), buffer_size=2**17)


def _open_zstd(file: Any) -> Any:
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd")


class _ConcatenatedStreams:
    """Decompresses concatenated streams, with zero bytes between and after them.

    bz2.open and lzma.open would take damage after the first stream for the end of the file.
    """

    def __init__(self, file: BinaryIO, decompressor: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]) -> None:
        self.file, self.new = file, decompressor
        self.decompressor = decompressor()

    def read(self, size: int) -> bytes:
        while True:
            compressed = b""
            if self.decompressor.eof:
                compressed = self._next_stream()
                if not compressed:
                    return b""
                self.decompressor = self.new()
            elif self.decompressor.needs_input:
                compressed = self.file.read(io.DEFAULT_BUFFER_SIZE)
                if not compressed:
                    raise EOFError("it ends before the end of a stream")
            if content := self.decompressor.decompress(compressed, size):
                return content

    def _next_stream(self) -> bytes:
        """Return the first bytes after a stream, without zeros; b"": the file ends."""
        rest = self.decompressor.unused_data
        while not (content := rest.lstrip(b"\0")):
            rest = self.file.read(io.DEFAULT_BUFFER_SIZE)
            if not rest:
                return b""
        return content


class _LimitedDecompression(io.RawIOBase):
    """Decompressed bytes; refuses a small file that expands too far, since all its rows would be kept in memory."""

    def __init__(self, path: Path, opened: BinaryIO | _ConcatenatedStreams) -> None:
        self.path, self.opened, self.count = path, opened, 0
        self.limit = max(_ALWAYS_ALLOWED, _MAX_RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        content = self.opened.read(len(memoryview(buffer)))
        self.count += len(content)
        if self.count > self.limit:
            raise DataError(
                f"{self.path}: decompresses to more than {_MAX_RATIO} times its size, which is unusual for text;"
                " decompress it first if it is right"
            )
        memoryview(buffer)[: len(content)] = content
        return len(content)


def _check_magic(path: Path, head: bytes, compression: str | None) -> None:
    actual = next((name for magic, name in _MAGIC.items() if magic.match(head)), None)
    if compression and not head:
        raise DataError(f"{path}: an empty file, not {compression} data; write it again")
    if actual == compression:
        return
    if actual in COMPRESSIONS.values():
        suffix = next(suffix for suffix, name in COMPRESSIONS.items() if name == actual)
        plain = path.with_suffix("") if compression else path
        raise DataError(f"{path}: holds {actual} data, unlike its name; rename it to {plain.name}{suffix}")
    if actual == "zip":
        raise DataError(f"{path}: a zip archive or a workbook of Excel; unpack it, or save the table as CSV")
    if actual == "Parquet":
        raise DataError(f"{path}: holds Parquet data; rename it to {path.with_suffix('.parquet').name}")
    raise DataError(f"{path}: not {compression} data, though its name ends in {path.suffix}; rename it to {path.stem}")


def _check_encoding(path: Path, head: bytes) -> None:
    actual = next((name for mark, name in _UTF16.items() if head.startswith(mark)), None)
    if actual is None and b"\0" in head[:4]:
        actual = "binary data or UTF-16"
    if actual:
        raise DataError(f"{path}: {actual}, not UTF-8; save the file as UTF-8")
