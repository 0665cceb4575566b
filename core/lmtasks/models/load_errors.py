"""Errors of loading other people's model files, each as one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lmtasks.errors import LmtasksError, ModelError, option

PLAIN = (OSError, ValueError, ImportError, RuntimeError)
"""Errors whose text is written for people; the names of others help to understand them."""

LONGEST = 400
"""Characters of an error's text that are shown."""


def error_text(error: BaseException) -> str:
    """Return the text of an error in one line of bounded length."""
    text = _flat(error)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _flat(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if not isinstance(error, PLAIN) or isinstance(error, RecursionError) or not text:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text


@contextmanager
def model_errors(name: str) -> Iterator[None]:
    """Turn whatever is raised about a model's files into one line.

    transformers, tokenizers and huggingface_hub check little of what they read: the same damage comes as a TypeError,
    an IndexError or a panic of Rust code. Here it is data that was read, so none of it is a bug of ours; -v shows the
    traceback all the same.

    Args:
        name: the model's name, for messages.

    Raises:
        ModelError: something was raised.
    """
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit, LmtasksError):
        raise
    except BaseException as error:  # a panic of Rust code is no Exception
        text = _flat(error)
        if "trust_remote_code" in text:
            raise ModelError(
                f'model "{name}" brings code of its own, which is not run unasked; if you trust it, add'
                f" {option('trust_remote_code', True)}"
            ) from error
        if "safetensors" in text:
            raise ModelError(
                f'model "{name}" has no weights in safetensors format; pickled weights are not read ({text[:200]})'
            ) from error
        if isinstance(error, OSError) and ("connect" in text.lower() or "offline" in text.lower()):
            raise ModelError(
                f'model "{name}": there is no such folder, and no copy of such a model of the hub, which cannot be'
                " reached; use a model of the catalog (`lmtasks models list`), a folder, or a .gguf file"
            ) from error
        if isinstance(error, MemoryError):
            raise ModelError(f'model "{name}" cannot be loaded: there is not enough memory for it') from error
        raise ModelError(f'model "{name}" cannot be loaded: {error_text(error)}') from error
