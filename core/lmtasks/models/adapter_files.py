"""Adapter folders: what they are, read and checked without torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from lmtasks.errors import AdapterError, option
from lmtasks.models.adapter_record import AdapterUseRecord
from lmtasks.models.info import ModelInfo
from lmtasks.paths import user_path
from lmtasks.shape import AtLeast, ShapeError, check_shape, parse_json, refuse_deep

WEIGHTS, CONFIG, RECORD = "adapter_model.safetensors", "adapter_config.json", "lmtasks.json"
NO_IDENTITY = ("base_model_name_or_path", "revision", "inference_mode", "peft_version")
"""Of the config, what changes nothing."""
SCHEMA = 1
"""Of lmtasks.json; raised when a field changes its meaning or goes."""
PREFIX = "adapter-"
"""Of the names that peft knows adapters by; peft finds weights by name, so that it must not be part of "lora_"."""
HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


MOST_NAMES = 100_000
"""Entries of a list or object of a config; the largest models have 50,000 linear layers."""


class AdapterConfig(TypedDict):
    """Of adapter_config.json, what is used here; `lmtasks.models.adapter_attach` refuses what else would count."""

    r: NotRequired[Annotated[int, AtLeast(1)]]
    lora_alpha: NotRequired[float]
    target_modules: str | list[str]
    exclude_modules: NotRequired[str | list[str] | None]
    layers_to_transform: NotRequired[Annotated[int, AtLeast(0)] | list[Annotated[int, AtLeast(0)]] | None]
    layers_pattern: NotRequired[str | list[str] | None]
    rank_pattern: NotRequired[dict[str, Annotated[int, AtLeast(1)]] | None]
    alpha_pattern: NotRequired[dict[str, float] | None]
    use_rslora: NotRequired[bool | None]
    use_dora: NotRequired[bool | None]
    fan_in_fan_out: NotRequired[bool | None]
    base_model_name_or_path: NotRequired[str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA adapter in a folder."""

    source: str
    """As the user named it: a folder or a hub id."""
    path: Path
    sha256: str
    """Of its weights."""
    config: Mapping[str, Any]
    """peft's: rank, target modules and so on."""
    record: Mapping[str, Any] | None
    """What lmtasks recorded of its training; None: it was made by something else."""

    @property
    def id(self) -> str:
        """Its identity, a hash: of its weights, and of its config, which says how strongly they count."""
        config = {name: value for name, value in self.config.items() if name not in NO_IDENTITY}
        text = json.dumps([self.sha256, config], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def shares_batches(self) -> bool:
        """Whether examples with other adapters, or none, may stand in a batch with it: not with DoRA."""
        return not self.config.get("use_dora")

    @property
    def rank(self) -> int:
        """Of its matrices; where the config is silent, peft's default."""
        return int(self.config.get("r", 8))

    @property
    def alpha(self) -> float:
        """By which its effect is scaled, with the rank; where the config is silent, peft's default."""
        return float(self.config.get("lora_alpha", 8))

    @property
    def task(self) -> str | None:
        """The task that it was trained for, if that is recorded."""
        return str(self.record["task"]["name"]) if self.record else None

    def belongs_to(self, model: ModelInfo) -> bool:
        """Tell whether it was trained on these very weights; where that is not recorded, it may have been."""
        return self.record is None or self.record["base"]["revision"] == model.revision


def adapter_name(adapter: Adapter | str) -> str:
    """Return what peft calls an adapter, by its hash."""
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
    hub = HUB_ID.fullmatch(str(source))
    if hub is None or str(source).startswith((".", "/", "~")):
        raise AdapterError(f"{source}: no such adapter folder")
    return _read(str(source), _fetch(str(source), hub["id"], hub["revision"]))


def _fetch(source: str, repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=[WEIGHTS, CONFIG, RECORD]))
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise AdapterError(
            f"{source}: there is no such adapter folder, and the hub has no such adapter or cannot be reached"
            f" ({' '.join(str(error).split())[:160]})"
        ) from error


def _read(source: str, path: Path) -> Adapter:
    if not (path / CONFIG).is_file():
        unfinished = (
            f" (its training has not finished: continue with {option('resume', True)})"
            if (path / "training").is_dir()
            else ""
        )
        raise AdapterError(f"{path}: no adapter folder, it has no {CONFIG}{unfinished}")
    if not (path / WEIGHTS).is_file():
        raise AdapterError(
            f"{path}: no {WEIGHTS}; pickled weights (.bin) are not read, save the adapter anew with peft"
        )
    config = _json(path / CONFIG)
    if config.get("peft_type") != "LORA":
        raise AdapterError(
            f"{path / CONFIG}: an adapter of type {config.get('peft_type')}; only LoRA adapters are used"
        )
    _check_config(path / CONFIG, config)
    record = None
    if (path / RECORD).is_file():
        record = _json(path / RECORD)
        if record.get("schema") != SCHEMA:
            raise AdapterError(
                f"{path / RECORD}: schema {record.get('schema')}, but this lmtasks reads schema {SCHEMA}; use the"
                " lmtasks that wrote it"
            )
        try:
            refuse_deep(record)
            check_shape(record, AdapterUseRecord)
        except ShapeError as error:
            raise AdapterError(f"{path / RECORD}: damaged ({error})") from error
    try:
        with (path / WEIGHTS).open("rb") as weights:
            sha256 = hashlib.file_digest(weights, "sha256").hexdigest()
    except OSError as error:
        raise AdapterError(f"{path / WEIGHTS}: cannot be read ({error.strerror})") from error
    if record and record["weights_sha256"] != sha256:
        raise AdapterError(
            f"{path / WEIGHTS}: damaged, or exchanged: its SHA-256 is {sha256[:12]}..., and {RECORD} says"
            f" {record['weights_sha256'][:12]}..."
        )
    return Adapter(source=source, path=path, sha256=sha256, config=config, record=record)


def _check_config(file: Path, config: dict[str, Any]) -> None:
    try:
        check_shape(config, AdapterConfig)
    except ShapeError as error:
        raise AdapterError(f"{file}: damaged ({error})") from error
    for name in AdapterConfig.__annotations__:
        value = config.get(name)
        if isinstance(value, list | dict) and len(value) > MOST_NAMES:
            raise AdapterError(f"{file}: damaged ({name}: expected names of modules, got {len(value):,} entries)")


def _json(file: Path) -> dict[str, Any]:
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{file}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise AdapterError(f"{file}: damaged, expected an object")
    return content
