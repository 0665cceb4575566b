"""Backends by name, and the one function that loads a model. Imports torch and transformers inside functions.

Today every model name is that of weights, and `options.backend` chooses what runs them. A name with a scheme
("baseline:...", "http:...") would be looked up in a second table of factories first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lmtasks.backends.base import LanguageModel
from lmtasks.options import InferenceOptions
from lmtasks.progress import OnProgress

Factory = Callable[[str, InferenceOptions, OnProgress], LanguageModel]
"""Loads a model by its name."""


def load_model(name: str, options: InferenceOptions, on_progress: OnProgress) -> LanguageModel:
    """Load a model with the backend that the options name.

    Args:
        name: a name of the catalog, a folder, a .gguf file, or a hub id ("org/name[@revision]").
        options: device, data type, backend and memory.
        on_progress: called while the model is fetched, converted and loaded.

    Raises:
        ModelError: it cannot be loaded, or the backend cannot run it.
        UnknownNameError: there is no such model.
    """
    return BACKENDS[options.backend](name, options, on_progress)


def _load_weights(name: str, options: InferenceOptions, on_progress: OnProgress) -> LanguageModel:
    """Load weights with transformers; its class chooses between the backends that run them."""
    from lmtasks.backends.huggingface import TransformersModel
    from lmtasks.models.loading import load

    loaded = load(
        name,
        device=options.device,
        dtype=options.dtype,
        trust_remote_code=options.trust_remote_code,
        on_progress=on_progress,
    )
    return TransformersModel(
        loaded, kv_bytes=int(options.kv_cache_gib * 2**30), quantize=options.quantize, backend=options.backend
    )


BACKENDS: Mapping[str, Factory] = {"auto": _load_weights, "native": _load_weights, "hf-generate": _load_weights}
"""By name, what loads a model."""
