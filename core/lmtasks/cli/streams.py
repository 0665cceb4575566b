"""Wraps stdout and stderr, so that no control characters of data or models reach a terminal.

stdout is for results: exact where it is piped, and a failed write is an error. stderr is for people, always without
control characters; what cannot be written there is dropped.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

from lmtasks.errors import OutputError
from lmtasks.escaping import visible

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_TQDM_CONTROLS = re.compile(r"\r|(\x1b\[A)+\Z")
"""Carriage return, and moves up from one progress bar to another."""


class _Stream:
    """A text stream that escapes what must not be shown."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the wrapped stream."""
        return getattr(self.stream, name)

    @property
    def buffer(self) -> _Bytes:
        """A binary stream that writes through `write`."""
        return _Bytes(self)

    def write(self, text: str) -> int:
        """Write text, escaped."""
        try:
            self.stream.write(self.shown(text))
        except OSError as error:
            self.fail(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each text."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the buffer."""
        try:
            self.stream.flush()
        except OSError as error:
            self.fail(error)

    def shown(self, text: str) -> str:
        """Return text with control characters escaped."""
        return visible(text)

    def fail(self, error: OSError) -> None:
        """Redirect the stream to the null device: Python would try to write its buffer again at exit."""
        try:
            number = self.stream.fileno()
        except (OSError, ValueError):  # not a file
            return
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)


class _Bytes(io.BufferedIOBase):
    """Accepts UTF-8 bytes and writes them as text."""

    def __init__(self, text: _Stream) -> None:
        self._text = text

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: ReadableBuffer) -> int:
        """Write bytes; bytes that are not UTF-8 are escaped."""
        content = bytes(data)
        self._text.write(content.decode("utf-8", "backslashreplace"))
        return len(content)

    def flush(self) -> None:
        """Flush the buffer."""
        self._text.flush()


class Results(_Stream):
    """stdout: exact for programs, escaped on a terminal."""

    def shown(self, text: str) -> str:
        """Return text unchanged, or escaped if stdout is a terminal."""
        return visible(text) if self.stream.isatty() else text

    def fail(self, error: OSError) -> None:
        """Report that results are lost.

        Raises:
            BrokenPipeError: the reader has exited.
            OutputError: they cannot be written.
        """
        super().fail(error)
        if isinstance(error, BrokenPipeError):
            raise error
        reason = "stdout is closed" if error.errno == errno.EBADF else error.strerror
        raise OutputError(f"cannot write the results: {reason}") from error


class Messages(_Stream):
    """stderr: always escaped."""

    def shown(self, text: str) -> str:
        """Return text with control characters escaped, except those that tqdm draws progress bars with.

        tqdm writes them at the beginning of a text, or alone; no text with data begins with them.
        """
        lead = _TQDM_CONTROLS.match(text)
        return lead[0] + visible(text[lead.end() :]) if lead else visible(text)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Wrap sys.stdout and sys.stderr, and keep sys.stdout for results.

    Output of compiled code, child processes and exit functions to stdout goes to stderr. sys.stderr stays wrapped after
    the block, for messages at the end of the process.
    """
    _open_closed()
    if not isinstance(sys.stderr, Messages):
        sys.stderr = cast(TextIO, Messages(sys.stderr))
    before = sys.stdout
    try:
        results = os.dup(before.fileno())
        before.flush()
        os.dup2(sys.stderr.fileno(), before.fileno())
    except (OSError, ValueError):  # not a file
        sys.stdout = cast(TextIO, Results(before))
        try:
            yield
        finally:
            sys.stdout = before
        return
    buffering = 1 if before.line_buffering else -1
    # Characters that the encoding lacks are escaped, as on stderr.
    stream = os.fdopen(results, "w", buffering, encoding=before.encoding, errors="backslashreplace")
    sys.stdout = cast(TextIO, Results(stream))
    try:
        yield
    finally:
        sys.stdout = sys.stderr


def _open_closed() -> None:
    """Open closed standard streams, so that reading or writing them fails.

    Otherwise the next opened file would get such a number, and output of compiled code would go into a run's samples.
    """
    for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # gets the lowest free number
            os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the life of the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
