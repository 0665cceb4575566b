"""Files written so that what was there before is never lost: whole, or not at all."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path


def write_whole(file: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file beside its place and rename it, so that a reader finds the old content or the new one.

    Args:
        file: replaced if it is there.
        content: what it will hold.
        sync: wait until the disk has it. Some disks say only then that they are full, and after a power cut the
            rename may otherwise be there without the content. It takes milliseconds: leave it out for what is
            written again within seconds.

    Raises:
        OSError: it cannot be written; the file is as before, and nothing stays beside it.
    """
    aside = file.with_name(f".{file.name}.part")
    try:
        with aside.open("wb") as written:
            written.write(content)
            if sync:
                written.flush()
                os.fsync(written.fileno())
        os.replace(aside, file)
    except OSError:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def append_whole(file: Path, content: bytes) -> None:
    """Add to the end of a file, all or nothing; the file is made if it is not there.

    Raises:
        OSError: it cannot be written; the file is as long as before.
    """
    before = file.stat().st_size if file.exists() else 0
    try:
        with file.open("ab") as written:
            written.write(content)
    except OSError:
        with suppress(OSError):
            os.truncate(file, before)
        raise


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
