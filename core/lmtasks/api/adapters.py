"""Showing an adapter, and merging it into its base model."""

from __future__ import annotations

from pathlib import Path

from lmtasks.errors import AdapterError, ModelError, UsageError, option
from lmtasks.files import atomic_folder
from lmtasks.models.adapter_files import Adapter, find_adapter
from lmtasks.options import Dtype
from lmtasks.paths import user_path
from lmtasks.progress import OnProgress, no_progress


def show_adapter(adapter: str | Path) -> Adapter:
    """Return an adapter with its config and record, checked against damage.

    Raises:
        AdapterError: there is none, or it is damaged.
    """
    return find_adapter(adapter)


def merge_adapter(
    adapter: str | Path,
    output: str | Path,
    *,
    model: str | Path | None = None,
    dtype: Dtype = "float32",
    trust_remote_code: bool = False,
    on_progress: OnProgress = no_progress,
) -> Path:
    """Add an adapter to the weights of its base, and write both as one model that plain transformers loads.

    Args:
        adapter: a folder or hub id.
        output: the folder of the model; it is created.
        model: the base; None: by the name that the adapter records.
        dtype: data type of the merged weights, in which they are added.
        trust_remote_code: whether code that comes with the model may run.
        on_progress: called while the base is loaded.

    Raises:
        AdapterError: the adapter does not fit the model, does not say which it belongs to, or the folder is taken.
            Or weights that are merged are no longer finite.
        ModelError: the base cannot be loaded, or its weights are not finite.
        UsageError: code may run, and the base is not named.
    """
    from safetensors import SafetensorError

    from lmtasks.models.adapter_attach import attach, changes_embeddings, merged
    from lmtasks.models.finite import not_finite
    from lmtasks.models.loading import load
    from lmtasks.models.quiet import quiet

    output = user_path(output, "output folder")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise AdapterError(f"{output}: is there already; name another folder with {option('output')}")
    lora = find_adapter(adapter)
    if model is None:
        if lora.record is None:
            raise AdapterError(f"{lora.source}: does not say which model it belongs to; name it with {option('model')}")
        if trust_remote_code:
            raise UsageError(
                f"{lora.source}: the adapter's file does not decide whose code may run; name the model with"
                f" {option('model')}"
            )
        model = lora.record.base.name
    loaded = load(str(model), device="cpu", dtype=dtype, trust_remote_code=trust_remote_code, on_progress=on_progress)
    if bad := not_finite(loaded.module):
        raise ModelError(
            f"{loaded.info.name}: its weight {bad} is NaN or infinite in {dtype}; nothing was written. Use"
            f" {option('dtype', 'float32')}, or fetch the model again if its file is damaged"
        )
    if loaded.module.config.get_text_config().tie_word_embeddings and changes_embeddings(loaded.module, lora):
        raise AdapterError(
            f"{lora.source}: changes the embeddings of {loaded.info.name} on one side only, which both sides share;"
            " it cannot be merged"
        )
    on_progress(f"merging {lora.source}", 0, 0)
    try:
        with quiet():
            module = merged(attach(loaded.module, lora, loaded.info), lora)
            if bad := not_finite(module):
                raise AdapterError(
                    f"{lora.source}: merged into {loaded.info.name}, the weight {bad} is NaN or infinite in {dtype};"
                    f" nothing was written. Use {option('dtype', 'float32')}, or an adapter that is not damaged"
                )
            with atomic_folder(output.resolve()) as folder:
                module.save_pretrained(folder)
                loaded.tokenizer.save_pretrained(folder)
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk is any of them
        raise AdapterError(f"{output}: cannot be written ({str(error).splitlines()[0]})") from error
    return output
