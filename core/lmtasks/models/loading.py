"""From a model's name to weights and tokenizer in memory."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lmtasks.compat.architectures import hub_file
from lmtasks.errors import ModelError, option, unknown_name
from lmtasks.files import sha256_folder
from lmtasks.kernels.memory import limit_kernel_caches, tune_malloc
from lmtasks.kernels.torch_private import attention_implementation, computes_in_bf16
from lmtasks.models import store
from lmtasks.models.adapter_files import CONFIG as ADAPTER_CONFIG
from lmtasks.models.adapter_files import HUB_ID
from lmtasks.models.catalog import CATALOG
from lmtasks.models.checkpoint_files import CONFIG, check_counts, check_folder, read_object, tensor_sizes
from lmtasks.models.info import ModelInfo
from lmtasks.models.load_errors import model_errors
from lmtasks.models.quiet import quiet
from lmtasks.models.size import check_size, refuse_absent
from lmtasks.options import Device, Dtype
from lmtasks.paths import user_path
from lmtasks.progress import OnProgress

log = logging.getLogger("lmtasks.models")

NO_IDENTITY = (".md", ".bin", ".pt", ".gguf", ".onnx", ".msgpack", ".h5", ".png")
"""Files of a model folder that can change no output: they are not read."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """Weights and tokenizer, ready to run."""

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    info: ModelInfo
    end_ids: tuple[int, ...]
    """Tokens that end an answer."""
    pad_id: int
    end_id: int
    """The one of them that training teaches: the template's end of a turn, else the tokenizer's end of a text."""


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where transformers finds a model."""

    source: str
    path: str
    """A folder, or a hub id."""
    revision: str | None
    """None where it is read from the hub's answer."""
    hub_revision: str | None = None
    languages: tuple[str, ...] = ()
    stored: store.StoredModel | None = None
    """Where it is one of the store."""


def load(name: str, *, device: Device, dtype: Dtype, trust_remote_code: bool, on_progress: OnProgress) -> LoadedModel:
    """Load a model by a name of the catalog, a folder, a .gguf file or a hub id ("org/name[@revision]").

    Args:
        name: the model's name.
        device: "auto" takes a GPU where there is one.
        dtype: "auto" takes bfloat16 where the hardware computes in it, else float32.
        trust_remote_code: whether code that comes with the model may run.
        on_progress: called while the model is downloaded, converted and loaded.

    Raises:
        ModelError: there is no such model, it is damaged, its weights are not safetensors or GGUF, it needs code that
            may not run, or device or dtype are not to be had; one line that says what to do.
        PathError: no file can have this name.
        UnknownNameError: the name is none of these; offers the nearest of the catalog.
    """
    limit_kernel_caches()
    tune_malloc()
    origin = _find(name, on_progress)
    chosen_device = _choose_device(device)
    chosen_dtype = _choose_dtype(dtype, chosen_device)
    weights = origin.path
    if origin.stored and chosen_dtype == torch.bfloat16:
        try:
            weights = str(store.in_dtype(origin.stored, "bfloat16", on_progress=on_progress))
        except (
            Exception
        ) as error:  # a store that is full, damaged or not ours: loading takes longer, or says what is wrong
            log.debug("the model is not kept in bfloat16: %s", error)
    on_progress(f"loading {name}", 0, 0)
    arguments: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if origin.hub_revision:
        arguments["revision"] = origin.hub_revision
    with model_errors(name), quiet():
        _check_before(origin, arguments)
        tokenizer = AutoTokenizer.from_pretrained(origin.path, **arguments)
        _check_template(name, tokenizer)
        module, loading = AutoModelForCausalLM.from_pretrained(
            weights,
            dtype=chosen_dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **arguments,
        )
        refuse_absent(name, loading)
        _check_vocabulary(name, module, tokenizer)
        module = module.to(chosen_device).eval()
        end_ids = _end_ids(module, tokenizer)
        pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end_ids[0]
        # A model's own settings (sampling, penalties) must not seep into what a task asks for.
        module.generation_config = GenerationConfig(eos_token_id=list(end_ids), pad_token_id=pad_id)
        config = module.config.get_text_config()
    revision = origin.revision or _hub_commit(origin)
    info = ModelInfo(
        name=name,
        source=origin.source,
        revision=revision,
        architecture=type(module).__name__,
        parameters=module.num_parameters(),
        dtype=str(chosen_dtype).removeprefix("torch."),
        device=str(chosen_device),
        context_length=getattr(config, "max_position_embeddings", None),
        chat=tokenizer.chat_template is not None,
        languages=origin.languages,
        remote_code=trust_remote_code,
    )
    taught = [token for token in (_turn_end(tokenizer), tokenizer.eos_token_id, end_ids[0]) if token is not None]
    return LoadedModel(module, tokenizer, info, end_ids, pad_id, taught[0])


def _find(name: str, on_progress: OnProgress) -> _Origin:
    if name in CATALOG:
        stored = store.pull(CATALOG[name], accept_license=False, on_progress=on_progress)
        languages = CATALOG[name].languages
        return _Origin("catalog", str(stored.path), f"sha256:{stored.sha256}", languages=languages, stored=stored)
    path = user_path(name, "model")
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelError(f"{path}: expected a folder in transformers format or a .gguf file")
        stored = store.convert_gguf(path, on_progress=on_progress)
        return _Origin("gguf", str(stored.path), f"sha256:{stored.sha256}", stored=stored)
    if path.is_dir():
        check_folder(path)
        return _Origin("folder", str(path), f"sha256:{sha256_folder(path, ignored_suffixes=NO_IDENTITY)}")
    looks_local = name.startswith((".", "/", "~")) or path.suffix.lower() == ".gguf" or len(path.parts) > 2
    hub = None if looks_local else HUB_ID.fullmatch(name)
    if hub:
        return _Origin("hub", hub["id"], None, hub_revision=hub["revision"])
    if looks_local:
        raise ModelError(f"{name}: no such model folder or file")
    raise unknown_name("model", name, CATALOG)


def _check_before(origin: _Origin, arguments: dict[str, Any]) -> None:
    """Check what would be built and read, before it takes time and memory.

    Raises:
        ModelError: the model holds an adapter, or its config names code to be run or describes a larger model than
            there are weights for.
    """
    if origin.source == "hub":
        if (adapter := hub_file(origin.path, ADAPTER_CONFIG, origin.hub_revision)) is not None:
            raise ModelError(
                f"{origin.path}: holds an adapter ({adapter.name}), and it would not be said which weights answer; name"
                f" its base with {option('model')} and it with {option('adapter')}"
            )
        if (file := hub_file(origin.path, CONFIG, origin.hub_revision)) is not None:
            check_counts(file, read_object(file))
    config = AutoConfig.from_pretrained(origin.path, **arguments)
    attention = str(attention_implementation(config.get_text_config()))
    if "/" in attention and not arguments["trust_remote_code"]:
        raise ModelError(
            f'{origin.path}: its config names code of the hub (attn_implementation "{attention:.60}"), which is not run'
            f" unasked; if you trust it, add {option('trust_remote_code', True)}"
        )
    if origin.source == "folder":
        where, there = str(Path(origin.path) / CONFIG), sum(tensor_sizes(Path(origin.path)))
        check_size(config, there, where=where, trust_remote_code=arguments["trust_remote_code"])


def _check_template(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse chat templates that are no text; one that is empty counts as none.

    Raises:
        ModelError: it is no text, or there are several and none of them is the default.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict):
        if "default" not in template:
            raise ModelError(
                f'model "{name}" has the chat templates {", ".join(sorted(map(str, template)))[:200]}, and none that is'
                " the default; leave one of them, as chat_template.jinja"
            )
        template = template["default"]
    if template is not None and not isinstance(template, str):
        raise ModelError(f'model "{name}": its chat template is {type(template).__name__}; expected a text')
    if template is not None and not template.strip():
        tokenizer.chat_template = None


def _check_vocabulary(name: str, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer with tokens that the model has no embedding for.

    Raises:
        ModelError: it has some.
    """
    rows = module.get_input_embeddings().weight.shape[0]
    highest, token = max(((number, token) for token, number in tokenizer.get_vocab().items()), default=(-1, ""))
    if highest >= rows:
        raise ModelError(
            f'model "{name}": its tokenizer has the token "{token:.40}" with the number {highest}, and the model has'
            f" embeddings for the numbers below {rows}; tokenizer and weights do not belong together"
        )


def _hub_commit(origin: _Origin) -> str:
    """Return the commit of the hub that a model was loaded from: the cache keeps its files under that name."""
    config = try_to_load_from_cache(origin.path, "config.json", revision=origin.hub_revision)
    return Path(config).parent.name if isinstance(config, str) else "unknown"


def _choose_device(device: Device) -> torch.device:
    if device == "auto":
        if torch.cuda.is_available():
            return _own_gpu()
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        cuda, cpu = option("device", "cuda"), option("device", "cpu")
        raise ModelError(f"{cuda}: this torch finds no CUDA device; use {cpu} or install a CUDA build")
    if device == "mps" and not torch.backends.mps.is_available():
        mps, cpu = option("device", "mps"), option("device", "cpu")
        raise ModelError(f"{mps}: this machine has no Metal device; use {cpu}")
    return _own_gpu() if device == "cuda" else torch.device(device)


def _own_gpu() -> torch.device:
    """Return the GPU of this process: torchrun and accelerate number those of a machine."""
    number = os.environ.get("LOCAL_RANK")
    return torch.device("cuda", int(number)) if number else torch.device("cuda")


def _choose_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    if dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
    if device.type == "cuda":
        # Older cards emulate bfloat16, slowly; float16 overflows in some models.
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu" and computes_in_bf16():
        return torch.bfloat16
    return torch.float32


def _end_ids(module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return every token that ends an answer: those the model names, and the template's end of a turn."""
    named = [module.generation_config.eos_token_id if module.generation_config else None]
    named += [module.config.get_text_config().eos_token_id, tokenizer.eos_token_id, _turn_end(tokenizer)]
    # Some configs keep the number of another vocabulary: no such token is ever chosen.
    there = range(module.get_input_embeddings().weight.shape[0])
    ids: dict[int, None] = {}
    for value in named:
        for token in value if isinstance(value, list) else [value]:
            if token is not None and int(token) in there:
                ids[int(token)] = None
    if not ids:
        raise ModelError(f"{tokenizer.name_or_path}: neither model nor tokenizer names a token that ends a text")
    return tuple(ids)


def _turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the control token that the chat template writes behind an answer, if any."""
    if tokenizer.chat_template is None:
        return None
    answer = "lmtasks"
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}], tokenize=False
        )
    except Exception:  # a template is foreign code, and may refuse this conversation
        log.debug("the chat template does not tell how it ends a turn", exc_info=True)
        return None
    after = tokenizer.encode(str(text).rpartition(answer)[2].lstrip(), add_special_tokens=False)
    return after[0] if after and after[0] in tokenizer.added_tokens_decoder else None
