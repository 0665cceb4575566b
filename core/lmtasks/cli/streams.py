"""What all that a command writes passes through, so that a terminal gets no control character of anybody else.

stdout is for results: exact where it is piped, and a write that fails is an error. stderr is for people, always
without control characters; what cannot be written there is lost, for nobody is left to be told.
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

_OF_TQDM = re.compile(r"\r|(\x1b\[A)+\Z")
"""To the beginning of the line; up, from one bar to another."""


class _Stream:
    """A text stream through which text is written as it may be shown."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        """Return what else the stream has."""
        return getattr(self.stream, name)

    @property
    def buffer(self) -> _Bytes:
        """The way for bytes, which does not lead around `write`."""
        return _Bytes(self)

    def write(self, text: str) -> int:
        """Write text."""
        try:
            self.stream.write(self.shown(text))
        except OSError as error:
            self.fail(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what is held back."""
        try:
            self.stream.flush()
        except OSError as error:
            self.fail(error)

    def shown(self, text: str) -> str:
        """Return text as it may be written."""
        return visible(text)

    def fail(self, error: OSError) -> None:
        """Lead what is still held back nowhere: Python would try to write it again when it ends."""
        try:
            number = self.stream.fileno()
        except (OSError, ValueError):  # no file at all
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


class _Bytes(io.BufferedIOBase):
    """Takes UTF-8, and writes it as text."""

    def __init__(self, text: _Stream) -> None:
        self._text = text

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: ReadableBuffer) -> int:
        """Write bytes; what is not UTF-8 is escaped."""
        content = bytes(data)
        self._text.write(content.decode("utf-8", "backslashreplace"))
        return len(content)

    def flush(self) -> None:
        """Write what is held back."""
        self._text.flush()


class Results(_Stream):
    """stdout: what a program reads is exact, what a terminal shows is not."""

    def shown(self, text: str) -> str:
        """Return text as it is, or without control characters for a terminal."""
        return visible(text) if self.stream.isatty() else text

    def fail(self, error: OSError) -> None:
        """Say that results are lost.

        Raises:
            BrokenPipeError: whoever read them has gone.
            OutputError: they cannot be written.
        """
        super().fail(error)
        if isinstance(error, BrokenPipeError):
            raise error
        reason = "stdout is closed" if error.errno == errno.EBADF else error.strerror
        raise OutputError(f"cannot write the results: {reason}") from error


class Messages(_Stream):
    """stderr."""

    def shown(self, text: str) -> str:
        """Return text without control characters, but for those that tqdm draws progress bars with.

        It writes them at the beginning of a text, or alone: no text that holds data begins like that.
        """
        lead = _OF_TQDM.match(text)
        return lead[0] + visible(text[lead.end() :]) if lead else visible(text)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Let sys.stdout take results alone, and everything be written through this module.

    What compiled code, child processes and functions at exit print to stdout goes to stderr. sys.stderr stays as it
    is made here, for what is still to be said when the process ends.
    """
    _open_closed()
    if not isinstance(sys.stderr, Messages):
        sys.stderr = cast(TextIO, Messages(sys.stderr))
    before = sys.stdout
    try:
        results = os.dup(before.fileno())
        before.flush()
        os.dup2(sys.stderr.fileno(), before.fileno())
    except (OSError, ValueError):  # no file at all
        sys.stdout = cast(TextIO, Results(before))
        try:
            yield
        finally:
            sys.stdout = before
        return
    buffering = 1 if before.line_buffering else -1
    # What a terminal or UTF-8 cannot show is escaped, as on stderr.
    stream = os.fdopen(results, "w", buffering, encoding=before.encoding, errors="backslashreplace")
    sys.stdout = cast(TextIO, Results(stream))
    try:
        yield
    finally:
        sys.stdout = sys.stderr


def _open_closed() -> None:
    """Open standard streams that are closed, such that to read or write them fails.

    Otherwise the next files that are opened get their numbers, and what compiled code prints goes into a run's samples.
    """
    for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # gets the lowest number that is free
            os.set_inheritable(number, True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
