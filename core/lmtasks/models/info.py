"""A model's identity and shape, as a run records them."""

from __future__ import annotations

from dataclasses import dataclass

from lmtasks.options import Quantize


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A loaded model's identity and shape."""

    name: str
    """The name that the user gave."""
    source: str
    """"catalog", "folder", "gguf" or "hub"."""
    revision: str
    """The hash of the weights ("sha256:..."), or the hub's commit."""
    architecture: str
    parameters: int
    dtype: str
    device: str
    context_length: int | None
    """In tokens, prompt and answer together; None: unlimited."""
    chat: bool
    """Whether it has a chat template."""
    languages: tuple[str, ...] = ()
    """Languages that it writes, as primary BCP 47 subtags; empty: unknown or many."""
    remote_code: bool = False
    """Whether code from its folder or the hub was allowed to run."""
    quantize: Quantize = "none"
    """Data type that its linear layers are quantized to for inference."""
