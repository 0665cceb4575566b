"""Paths that a user wrote, checked once so that every later look at the file system is safe."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from lmtasks.errors import PathError

LONGEST_NAME = 255
"""Bytes of one part of a path that common file systems take."""
_SHOWN = 60
"""Characters of a path that a message shows; one that is too long would fill the screen."""


def user_path(text: str | os.PathLike[str], what: str) -> Path:
    """Return a path as the user wrote it, with "~" and "~user" replaced by the home folder.

    The path need not exist. Whether it does can be asked afterwards without surprises: `exists`, `is_file` and
    `is_dir` do not raise for what this function returns.

    Args:
        text: what the user wrote, at a flag, in a file or in a Python call.
        what: whose path it is, for messages: "data file", "model", "output folder".

    Raises:
        PathError: no file can have this name, its "~user" is unknown, or a folder on the way may not be searched.
    """
    written = os.fspath(text)
    shown = written[:_SHOWN] + "..." if len(written) > _SHOWN else written
    named = f'{what} "{shown}"'.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    if not written:
        raise PathError(f"{what}: the name is empty; expected a path")
    if "\0" in written:
        raise PathError(f"{named}: holds a NUL character, which no file name can; correct the name")
    try:
        os.fsencode(written)
    except UnicodeEncodeError as error:
        raise PathError(f"{named}: holds half a surrogate pair, which no file name can; correct the name") from error
    try:
        path = Path(written).expanduser()
    except RuntimeError as error:
        user = written.partition("/")[0]
        raise PathError(f'{named}: "{user}" is the home folder of no known user; write the path in full') from error
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    if longest > LONGEST_NAME:
        raise PathError(
            f"{named}: a part of this path has {longest:,} bytes, but file systems take {LONGEST_NAME}; use a shorter"
            " name"
        )
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise PathError(f"{named}: the whole path is too long for the file system; use a shorter one") from error
        raise PathError(f"{named}: cannot be looked up: {error.strerror or error}") from error
    return path
