"""From a GGUF file to folders that transformers loads in a second."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

from lmtasks.compat.architectures import no_gguf_progress_bar
from lmtasks.errors import LmtasksError, ModelError
from lmtasks.models.gguf import check_gguf
from lmtasks.models.load_errors import error_text
from lmtasks.models.quiet import quiet
from lmtasks.models.size import check_size, refuse_absent


def save_as_dtype(source: Path, folder: Path, dtype: str) -> None:
    """Write the weights of a model, without its tokenizer, in another precision."""
    with quiet():
        AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, dtype)).save_pretrained(folder)


def convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF model as float32 safetensors, with its tokenizer and chat template.

    Raises:
        ModelError: the file is damaged, or transformers cannot read this architecture or quantisation.
    """
    try:
        with quiet(), no_gguf_progress_bar():
            weights = check_gguf(gguf)
            config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
            check_size(config, weights, where=str(gguf))
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            # Without dequantizing, the model keeps GGUF's blocks: slow, and it cannot be saved.
            model, loading = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
            )
            refuse_absent(gguf.name, loading)
            # Some releases leave the settings behind, and then refuse to save.
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except Exception as error:  # whatever a header may lead to
        if isinstance(error, LmtasksError) or getattr(error, "errno", None) is not None:  # what the disk says
            raise
        raise ModelError(f"{gguf.name}: transformers cannot convert this GGUF file: {error_text(error)}") from error
