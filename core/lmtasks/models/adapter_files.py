"""Adapter folders, read and checked without torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmtasks.errors import AdapterError, TrainingError, option
from lmtasks.files import atomic_write, sha256_file
from lmtasks.models.info import ModelInfo
from lmtasks.paths import user_path
from lmtasks.records.strict_json import RecordError, parse_json

if TYPE_CHECKING:
    from lmtasks.records.adapter import AdapterRecord

WEIGHTS, CONFIG, RECORD = "adapter_model.safetensors", "adapter_config.json", "lmtasks.json"
NO_EFFECT = ("base_model_name_or_path", "revision", "inference_mode", "peft_version")
"""Settings of the config that do not change what an adapter computes."""
PREFIX = "adapter-"
"""Prefix of adapter names in peft, which finds weights by name: it must not be part of "lora_"."""
HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
"""The name of a model or an adapter on the hub: "org/name" or "org/name@revision"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter in a folder."""

    source: str
    """As the user named it: a folder or a hub id."""
    path: Path
    sha256: str
    """SHA-256 of the weights."""
    config: Mapping[str, Any]
    """adapter_config.json of peft: rank, target modules and so on."""
    record: AdapterRecord | None
    """The record of its training; None: it was trained outside lmtasks."""

    @property
    def id(self) -> str:
        """Hash of the weights, and of the config, which scales them."""
        config = {name: value for name, value in self.config.items() if name not in NO_EFFECT}
        text = json.dumps([self.sha256, config], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def shares_batches(self) -> bool:
        """Whether examples with other adapters, or none, may stand in a batch with it: not with DoRA."""
        return not self.config.get("use_dora")

    @property
    def rank(self) -> int:
        """LoRA rank; where the config has none, peft's default."""
        return int(self.config.get("r", 8))

    @property
    def alpha(self) -> float:
        """LoRA alpha; where the config has none, peft's default."""
        return float(self.config.get("lora_alpha", 8))

    @property
    def task(self) -> str | None:
        """The task that it was trained for, if that is recorded."""
        return self.record.task.name if self.record else None

    def belongs_to(self, model: ModelInfo) -> bool:
        """Return whether it was trained on the weights of a model; True where that is not recorded."""
        return self.record is None or self.record.base.revision == model.revision


def adapter_name(adapter: Adapter | str) -> str:
    """Return the name of an adapter in peft, from its hash."""
    return f"{PREFIX}{(adapter if isinstance(adapter, str) else adapter.id)[:16]}"


def find_adapter(source: str | Path) -> Adapter:
    """Return an adapter by its folder or its hub id ("org/name[@revision]").

    Raises:
        AdapterError: there is none, it is damaged, of another kind than LoRA, or pickled.
        PathError: no file can have this name.
    """
    path = user_path(source, "adapter")
    if path.is_dir():
        return _read(str(source), path)
    hub_id = HUB_ID.fullmatch(str(source))
    if hub_id is None or str(source).startswith((".", "/", "~")):
        raise AdapterError(f"{source}: no such adapter folder")
    return _read(str(source), _download(str(source), hub_id["id"], hub_id["revision"]))


def _download(source: str, repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=[WEIGHTS, CONFIG, RECORD]))
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise AdapterError(
            f"{source}: there is no such adapter folder, and the hub has no such adapter or cannot be reached"
            f" ({' '.join(str(error).split())[:160]})"
        ) from error


def read_record(file: Path) -> AdapterRecord:
    """Return the content of lmtasks.json in an adapter's folder, checked.

    Raises:
        AdapterError: it is damaged, or another version of lmtasks wrote it.
    """
    from lmtasks.records.adapter import read_adapter_record
    from lmtasks.records.reading import OtherSchemaError

    try:
        return read_adapter_record(file.read_text(encoding="utf-8"))
    except OtherSchemaError as error:
        raise AdapterError(f"{file}: {error}; train the adapter again, or use the lmtasks that wrote it") from error
    except (OSError, ValueError) as error:
        raise AdapterError(f"{file}: damaged ({error})") from error


def write_record(folder: Path, record: AdapterRecord) -> None:
    """Write lmtasks.json into an adapter's folder.

    Raises:
        TrainingError: it cannot be written.
    """
    from lmtasks.records.adapter import adapter_record_text

    try:
        # Half a surrogate pair, as in a file name that is not UTF-8, becomes an escape of JSON.
        atomic_write(folder / RECORD, adapter_record_text(record).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise TrainingError(
            f"{folder / RECORD}: cannot be written ({error}); resume the training with {option('resume', True)}"
        ) from error


def _read(source: str, path: Path) -> Adapter:
    from lmtasks.records.model import check_adapter_config

    if not (path / CONFIG).is_file():
        unfinished = (
            f" (its training has not finished: resume it with {option('resume', True)})"
            if (path / "training").is_dir()
            else ""
        )
        raise AdapterError(f"{path}: not an adapter folder, it has no {CONFIG}{unfinished}")
    if not (path / WEIGHTS).is_file():
        raise AdapterError(
            f"{path}: no {WEIGHTS}; pickled weights (.bin) are not read, save the adapter again with peft"
        )
    config = _json(path / CONFIG)
    if config.get("peft_type") != "LORA":
        raise AdapterError(
            f"{path / CONFIG}: an adapter of type {config.get('peft_type')}; only LoRA adapters are supported"
        )
    try:
        check_adapter_config(config)
    except RecordError as error:
        raise AdapterError(f"{path / CONFIG}: damaged ({error})") from error
    record = read_record(path / RECORD) if (path / RECORD).is_file() else None
    try:
        sha256 = sha256_file(path / WEIGHTS)
    except OSError as error:
        raise AdapterError(f"{path / WEIGHTS}: cannot be read ({error.strerror})") from error
    if record and record.weights_sha256 != sha256:
        raise AdapterError(
            f"{path / WEIGHTS}: damaged, or exchanged: its SHA-256 is {sha256[:12]}..., but {RECORD} records"
            f" {record.weights_sha256[:12]}..."
        )
    return Adapter(source=source, path=path, sha256=sha256, config=config, record=record)


def _json(file: Path) -> dict[str, Any]:
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{file}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise AdapterError(f"{file}: damaged, expected an object")
    return content
