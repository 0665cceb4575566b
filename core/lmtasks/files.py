"""Write files and folders atomically, and hash them: after a crash the old content is there, or all of the new."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def atomic_write(file: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file under a temporary name and rename it, so that a reader finds the old content or the new one.

    Args:
        file: replaced if it exists.
        content: the new content.
        sync: wait until the disk has it. Some disks report only then that they are full, and after a power cut the
            rename may otherwise be there without the content. It takes milliseconds: leave it out for what is
            written again within seconds.

    Raises:
        OSError: the file cannot be written; it is as before, and no temporary file is left.
    """
    with _temporary(file) as temporary, temporary.open("wb") as stream:
        stream.write(content)
        if sync:
            stream.flush()
            os.fsync(stream.fileno())


def atomic_copy(source: Path, target: Path) -> None:
    """Copy a file under a temporary name and rename it.

    Raises:
        OSError: a file cannot be read or written; the target is as before.
    """
    with _temporary(target) as temporary:
        shutil.copyfile(source, temporary)


@contextmanager
def _temporary(file: Path) -> Iterator[Path]:
    """Give a path beside a file that is renamed to it at the end, or removed where an OSError is raised."""
    temporary = temporary_path(file)
    try:
        yield temporary
        os.replace(temporary, file)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def temporary_path(path: Path) -> Path:
    """Return the name that a file or folder has until it is complete."""
    return path.with_name(f".{path.name}.part")


def atomic_append(file: Path, content: bytes) -> None:
    """Append to a file, all or nothing; the file is created if it does not exist.

    Raises:
        OSError: the file cannot be written; it is as long as before.
    """
    before = file.stat().st_size if file.exists() else 0
    try:
        with file.open("ab") as stream:
            stream.write(content)
    except OSError:
        with suppress(OSError):
            os.truncate(file, before)
        raise


@contextmanager
def atomic_folder(path: Path, *, main: bool = True, wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Give an empty folder beside `path` that is renamed to it at the end.

    Whatever is raised within, the folder is removed, and `path` is as before.

    Args:
        path: does not exist, or is an empty folder.
        main: whether this process creates, renames and removes the folder; several may write to it together.
        wait: blocks until all processes have called it.

    Raises:
        OSError: a folder cannot be created or renamed.
    """
    temporary = temporary_path(path)
    try:
        if main:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        wait()
        yield temporary
        wait()
        if main:
            if path.is_dir():
                path.rmdir()
            os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def replace_folder(source: Path, target: Path) -> None:
    """Rename a folder to `target`, and remove what is there.

    Raises:
        OSError: it cannot be renamed.
    """
    shutil.rmtree(target, ignore_errors=True)
    source.rename(target)


def remove_folder(path: Path) -> None:
    """Remove a folder, renamed first: a crash never leaves half of it under its name.

    Raises:
        OSError: it cannot be renamed or removed.
    """
    temporary = temporary_path(path)
    os.replace(path, temporary)
    shutil.rmtree(temporary)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_folder(path: Path, *, ignored_suffixes: tuple[str, ...] = ()) -> str:
    """Return the SHA-256 of the names and contents of all files below a folder, in hexadecimal.

    Args:
        path: the folder. Names that begin with a dot are left out, as are folders of such names.
        ignored_suffixes: ends of names, in lower case, of files that are left out.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        name = file.relative_to(path).as_posix()
        if name.lower().endswith(ignored_suffixes) or any(part.startswith(".") for part in name.split("/")):
            continue
        digest.update(f"{name}:{sha256_file(file)}\n".encode())
    return digest.hexdigest()
