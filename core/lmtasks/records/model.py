"""The parts that lmtasks uses of JSON files beside a model's or an adapter's weights."""

from __future__ import annotations

from typing import Any

from lmtasks.records.reading import Count, ForeignRecord, Items, Positive, validate
from lmtasks.records.strict_json import RecordError, parse_json

MAX_NAMES = 100_000
"""Entries of a list or object of an adapter's config; the largest models have 50,000 linear layers."""


class ManifestRecord(ForeignRecord):
    """The GGUF file that a converted model was made from."""

    gguf_sha256: str


class WeightIndexRecord(ForeignRecord):
    """model.safetensors.index.json: the file of each weight."""

    weight_map: dict[str, str] = {}


class AdapterConfigRecord(ForeignRecord):
    """adapter_config.json of peft; `lmtasks.models.adapter_attach` refuses what else would count."""

    r: Positive = 8
    lora_alpha: float = 8
    target_modules: str | Items[str]
    exclude_modules: str | Items[str] | None = None
    layers_to_transform: Count | Items[Count] | None = None
    layers_pattern: str | Items[str] | None = None
    rank_pattern: dict[str, Positive] | None = None
    alpha_pattern: dict[str, float] | None = None
    use_rslora: bool | None = None
    use_dora: bool | None = None
    fan_in_fan_out: bool | None = None
    base_model_name_or_path: str | None = None


def read_manifest(text: str) -> ManifestRecord:
    """Return the manifest of a converted model.

    Raises:
        ValueError: it is not JSON, or a part is missing or of another type; the message is one line.
    """
    return validate(ManifestRecord, parse_json(text))


def check_adapter_config(values: dict[str, Any]) -> None:
    """Check the settings of adapter_config.json that are used.

    Raises:
        RecordError: a setting is missing, of another type, or too long.
    """
    validate(AdapterConfigRecord, values)
    for name in AdapterConfigRecord.model_fields:
        value = values.get(name)
        if isinstance(value, list | dict) and len(value) > MAX_NAMES:
            raise RecordError(f"{name}: expected names of modules, got {len(value):,} entries")
