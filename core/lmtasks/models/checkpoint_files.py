"""A model folder, checked before transformers builds anything from it."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from lmtasks.errors import ModelError, option
from lmtasks.models.adapter_files import CONFIG as ADAPTER_CONFIG
from lmtasks.records.strict_json import RecordError, abbreviate, parse_json

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
OBJECTS = (CONFIG, INDEX, "generation_config.json", "tokenizer_config.json", "special_tokens_map.json")
"""Files that hold an object, where they are there. What is in tokenizer.json is left to its library."""
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""Names that configs of architectures use for the number of layers."""
COUNTED = re.compile(r"(layers?|labels|experts|blocks|dense_replace)$")
"""Settings by which configs and architectures count what they build, one after the other."""
MOST_COUNTED = 100_000


def check_folder(path: Path) -> None:
    """Check that the files of a model folder agree with each other.

    Raises:
        ModelError: it is no model folder, holds an adapter, or a file is damaged or names others that are not there;
            names the file.
    """
    holds_adapter = (path / ADAPTER_CONFIG).is_file()
    if not (path / CONFIG).is_file():
        if holds_adapter:
            raise ModelError(
                f"{path}: an adapter, not a model (it has {ADAPTER_CONFIG} and no {CONFIG}); name its base with"
                f" {option('model')} and it with {option('adapter')}"
            )
        raise ModelError(f"{path}: no model folder in transformers format (it has no {CONFIG})")
    if holds_adapter:
        raise ModelError(
            f"{path}: holds an adapter beside the model ({ADAPTER_CONFIG}), and it would not be said which of them"
            " answers; move the adapter's files to a folder of their own, name the base with"
            f" {option('model')} and the adapter with {option('adapter')}"
        )
    if not any(path.glob("*.safetensors")):
        raise ModelError(
            f"{path}: no weights in safetensors format; pickled weights (.bin, .pt) are not read. Save the model anew"
            " with save_pretrained"
        )
    contents = {name: read_object(path / name) for name in OBJECTS if (path / name).is_file()}
    _check_names(path, contents)
    check_counts(path / CONFIG, contents[CONFIG], tensors=len(tensor_sizes(path)))


def tensor_sizes(path: Path) -> list[int]:
    """Return how many numbers each tensor of a folder's safetensors files has.

    Raises:
        ModelError: one of the files is damaged.
    """
    from safetensors import SafetensorError, safe_open

    sizes = []
    for file in sorted(path.glob("*.safetensors")):
        try:
            with safe_open(file, framework="np") as content:
                for name in content.keys():  # noqa: SIM118 - it is no mapping
                    size = 1
                    for length in content.get_slice(name).get_shape():
                        size *= length
                    sizes.append(size)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file}: damaged, it cannot be loaded ({' '.join(str(error).split())[:200]})") from error
    return sizes


def read_object(file: Path) -> dict[str, Any]:
    """Return the object that a JSON file of a model holds.

    Raises:
        ModelError: it cannot be read, or holds something else.
    """
    try:
        content: dict[str, Any] = parse_json(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise RecordError(f"expected an object, got {abbreviate(content)}")
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: damaged ({error})") from error
    return content


def _check_names(path: Path, contents: dict[str, dict[str, Any]]) -> None:
    """Refuse names of weight files that lead out of the folder, or to nothing."""
    from lmtasks.records.model import WeightIndexRecord
    from lmtasks.records.reading import validate

    try:
        index = validate(WeightIndexRecord, contents.get(INDEX, {}))
    except RecordError as error:
        raise ModelError(f"{path / INDEX}: damaged ({error})") from error
    named = [(INDEX, name) for name in sorted(set(index.weight_map.values()))]
    explicit = contents[CONFIG].get("transformers_weights")
    if explicit is not None:
        named.append((CONFIG, str(explicit)))
    for file, name in named:
        if PurePosixPath(name).name != name or "\\" in name or not name.endswith((".safetensors", ".index.json")):
            raise ModelError(
                f'{path / file}: names the weight file "{name:.100}"; expected a .safetensors file beside it'
            )
        if "\0" in name or len(name.encode("utf-8", "replace")) > 255 or not (path / name).is_file():
            raise ModelError(f'{path / file}: names the weight file "{name:.100}", which is not there')


def check_counts(file: Path, config: dict[str, Any], *, tensors: int | None = None) -> None:
    """Refuse counts in a config that would let transformers build parts without end.

    Args:
        file: the config's file, for messages.
        config: its content.
        tensors: number of tensors of the weights; None: unknown.

    Raises:
        ModelError: there are more layers than tensors, or more of anything than any model has.
    """
    parts: list[dict[str, Any]] = [config]
    while parts:
        part = parts.pop()
        parts += [value for value in part.values() if isinstance(value, dict)]
        for name, count in part.items():
            if not isinstance(count, int | float) or not COUNTED.search(name):
                continue
            if name in LAYERS and tensors is not None and not 1 <= count <= tensors:
                raise ModelError(
                    f"{file}: {name} is {count!s:.40}, and the weights are {tensors} tensors; expected at least one for"
                    " each layer"
                )
            if count > MOST_COUNTED:
                raise ModelError(f"{file}: {name} is {count!s:.40}; no model has more than {MOST_COUNTED:,} of them")
