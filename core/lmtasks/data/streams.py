"""Data files as streams of bytes: compressed ones are decompressed while they are read."""

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
"""Suffix that a file's name has behind its own, and the compression that it stands for."""
LONGEST_LINE = 64 * 2**20
"""Bytes of a line (characters of a CSV cell) that are read; a longer one is no record but a damaged or hostile file."""
_MOST_GROWTH, _ALWAYS_READ = 200, 64 * 2**20
"""How many times its size a file may decompress to, once it has given so many bytes; text grows 3 to 20 times."""
_MAGIC = {
    re.compile(rb"\x1f\x8b"): "gzip",
    re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"): "zstd",  # pzstd begins with a frame to be skipped
    re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)"): "bzip2",  # a block, or the end of an empty stream
    re.compile(rb"\xfd7zXZ\0"): "xz",
    re.compile(rb"PK\x03\x04"): "zip",
    re.compile(rb"PAR1\x15"): "Parquet",
}
"""What the first bytes of a file say of it; none of them can begin a text."""
_UTF16 = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def suffixes(path: Path) -> tuple[str, str]:
    """Return what a name says of a file, in lower case: (".jsonl", ".gz"); "" where it says nothing."""
    last = path.suffix.lower()
    return (Path(path.stem).suffix.lower(), last) if last in COMPRESSIONS else (last, "")


def check_file(path: Path, what: str) -> None:
    """Refuse what is no regular file.

    Args:
        path: of the file.
        what: it should be, for messages: "data file".

    Raises:
        DataError: there is no such file, or it is a folder, pipe, socket or device.
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
        raise DataError(f"{path}: no regular file; save what it gives as a {what}, which can be read again and hashed")


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a text file for reading, decompressed if its name says that it is compressed.

    Raises:
        DataError: it cannot be read, is compressed otherwise than its name says, is damaged, or is UTF-16.
    """
    compression = COMPRESSIONS.get(suffixes(path)[1])
    try:
        with path.open("rb") as file:
            _check_magic(path, file.peek(16), compression)
            with _decompressed(path, file, compression) as stream:
                _check_encoding(path, stream.peek(4))
                yield stream
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        # Only errors of the system have a number; those of decompressors say what is wrong with the data.
        if compression and not getattr(error, "errno", None):
            raise DataError(f"{path}: damaged {compression} data: {error}") from error
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_lines(path: Path, stream: BinaryIO) -> Iterator[bytes]:
    r"""Yield the lines of a stream, each with the "\n" that ends it.

    Raises:
        DataError: a line is longer than `LONGEST_LINE`.
    """
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise too_long(path, number)
        yield line


def too_long(path: Path, line: int) -> DataError:
    """Return the error for a line longer than `LONGEST_LINE`."""
    return DataError(f"{path}, line {line}: longer than {LONGEST_LINE // 2**20} MiB; expected a record on a line")


def _decompressed(path: Path, file: io.BufferedReader, compression: str | None) -> io.BufferedReader:
    if compression is None:
        return file
    openers: dict[str, Callable[[Any], Any]] = {
        "gzip": gzip.open,
        "zstd": _open_zstd,
        "bzip2": lambda file: _Joined(file, bz2.BZ2Decompressor),
        "xz": lambda file: _Joined(file, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)),
    }
    return io.BufferedReader(_Bounded(path, openers[compression](file)), buffer_size=2**17)


def _open_zstd(file: Any) -> Any:
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd")


class _Joined:
    """The bytes of compressed streams that stand one behind the other, with zeros between them or behind them.

    bz2.open and lzma.open would take what is damaged behind the first stream for the end of the file.
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
        """Return the beginning of what stands behind a stream, without zeros; b"": nothing does."""
        rest = self.decompressor.unused_data
        while not (begun := rest.lstrip(b"\0")):
            rest = self.file.read(io.DEFAULT_BUFFER_SIZE)
            if not rest:
                return b""
        return begun


class _Bounded(io.RawIOBase):
    """Decompressed bytes, refused where a small file grows without measure: each row of it would be kept in memory."""

    def __init__(self, path: Path, opened: BinaryIO | _Joined) -> None:
        self.path, self.opened, self.count = path, opened, 0
        self.most = max(_ALWAYS_READ, _MOST_GROWTH * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        content = self.opened.read(len(memoryview(buffer)))
        self.count += len(content)
        if self.count > self.most:
            raise DataError(
                f"{self.path}: decompresses to more than {_MOST_GROWTH} times its size, as no data does; if it is what"
                " you want to read, decompress it first"
            )
        memoryview(buffer)[: len(content)] = content
        return len(content)


def _check_magic(path: Path, head: bytes, compression: str | None) -> None:
    found = next((name for magic, name in _MAGIC.items() if magic.match(head)), None)
    if compression and not head:
        raise DataError(f"{path}: an empty file, not {compression} data; write it again")
    if found == compression:
        return
    if found in COMPRESSIONS.values():
        suffix = next(suffix for suffix, name in COMPRESSIONS.items() if name == found)
        plain = path.with_suffix("") if compression else path
        raise DataError(f"{path}: holds {found} data, which its name does not say; rename it to {plain.name}{suffix}")
    if found == "zip":
        raise DataError(f"{path}: a zip archive or a workbook of Excel; unpack it, or save the table as CSV")
    if found == "Parquet":
        raise DataError(f"{path}: holds Parquet data; rename it to {path.with_suffix('.parquet').name}")
    raise DataError(f"{path}: not {compression} data, though its name ends in {path.suffix}; rename it to {path.stem}")


def _check_encoding(path: Path, head: bytes) -> None:
    found = next((name for mark, name in _UTF16.items() if head.startswith(mark)), None)
    if found is None and b"\0" in head[:4]:
        found = "binary data or UTF-16"
    if found:
        raise DataError(f"{path}: {found}, not UTF-8; save the file as UTF-8")
