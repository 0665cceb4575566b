"""Models of transformers behind the backends that run weights: native where it can, else hf-generate."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase

from lmtasks.backends.base import Capabilities, Completion, Continuation, QuantizationLoss, Request
from lmtasks.backends.hf_generate import HFGenerateRunner
from lmtasks.backends.native.config import EngineConfig
from lmtasks.backends.native.runner import NativeRunner
from lmtasks.backends.native.stats import EngineStats
from lmtasks.errors import AdapterError, ModelError, PromptError, option
from lmtasks.kernels.calibration import CALIBRATION_TEXTS
from lmtasks.kernels.linear import supports_int8
from lmtasks.kernels.probe import EquivalenceProbe
from lmtasks.models.adapter_files import Adapter, adapter_name
from lmtasks.models.finite import NotFiniteError
from lmtasks.models.info import ModelInfo
from lmtasks.models.load_errors import error_text
from lmtasks.models.loading import LoadedModel
from lmtasks.models.quiet import quiet
from lmtasks.options import BackendName, Quantize
from lmtasks.prompts.chat_template import chat_template_of

if TYPE_CHECKING:
    from peft import PeftModel

log = logging.getLogger("lmtasks.backends")
KV_BYTES = 2**30
"""Memory for keys and values, where none is given."""
PROBE_TEXT = "The ferry leaves the harbour at nine, and the last one returns at"
"""Prompt on which the effect of an adapter is measured."""
CALIBRATION_DATE = date(2000, 1, 1)
"""Date for chat templates that print one: calibration must not depend on the day."""


class TransformersModel:
    """A causal language model of any architecture that transformers ships."""

    capabilities = Capabilities(adapters=True, logprobs=True, streaming=True)

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        kv_bytes: int = KV_BYTES,
        quantize: Quantize = "none",
        backend: BackendName = "auto",
        config: EngineConfig | None = None,
    ) -> None:
        """Put a loaded model behind a backend.

        Args:
            loaded: the model.
            kv_bytes: memory for keys and values.
            quantize: what linear layers are quantized to.
            backend: "auto" chooses when the model is first used: "native" where the architecture passes the probe,
                else "hf-generate", with a warning.
            config: limits of the native engine.

        Raises:
            ModelError: this model cannot be quantized or not on its device, or the native backend cannot run it.
        """
        self._loaded, self._quantize, self._asked = loaded, quantize, backend
        self._peft: PeftModel | None = None
        self._adapters: dict[str, tuple[Adapter, float]] = {}
        self._native = NativeRunner(
            loaded,
            kv_bytes=kv_bytes,
            quantize=quantize,
            calibration=lambda: [self._as_prompt(text) for text in CALIBRATION_TEXTS],
            config=config or EngineConfig(),
        )
        self._hf_generate = HFGenerateRunner(loaded, self._adapted)
        self._chosen: NativeRunner | HFGenerateRunner | None = None
        if backend == "hf-generate":
            self._chosen = self._hf_generate
        if quantize != "none":
            self._check_quantize()
        if backend == "native":
            self._runner()

    @property
    def info(self) -> ModelInfo:
        """The model's identity, as a run records it."""
        return replace(self._loaded.info, quantize=self._quantize)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's own tokenizer."""
        return self._loaded.tokenizer

    @property
    def backend(self) -> str:
        """Name of the backend that runs this model: "native" or "hf-generate".

        Raises:
            ModelError: the model computes nothing at all, or the native backend was asked for and cannot run it.
        """
        return self._runner().name

    @property
    def quantization_loss(self) -> QuantizationLoss | None:
        """Loss by quantization, measured on prompts of the last call; None: nothing is quantized."""
        return self._native.quantization_loss

    def stats(self) -> EngineStats | None:
        """Return the statistics of the native engine in the last call of `generate`; None: there was none."""
        return self._native.stats()

    def attach(self, adapter: Adapter) -> float:
        """Load an adapter; see `LanguageModel.attach`."""
        if adapter.id not in self._adapters:
            from lmtasks.models.adapter_attach import attach, max_logit_change  # importing peft takes a second

            # peft draws random weights that it then replaces: the caller's random numbers must not change by that.
            with quiet(), torch.random.fork_rng(devices=[]):
                self._peft = attach(self._peft or self._loaded.module, adapter, self.info)
            token_ids = self.tokenizer.encode(PROBE_TEXT, add_special_tokens=False)
            try:
                change = max_logit_change(self._peft, adapter, token_ids)
            except NotFiniteError as error:
                raise self._not_finite([]) from error
            if not math.isfinite(change):
                raise AdapterError(
                    f"{adapter.source}: with this adapter {self.info.name} computes logits that are NaN or infinite"
                )
            self._adapters[adapter.id] = adapter, change
            self._native.attached(self._peft)
        return self._adapters[adapter.id][1]

    def generate(
        self, requests: Sequence[Request], *, seed: int, batch_size: int | None = None
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Complete prompts; see `LanguageModel.generate`.

        Raises:
            ModelError: its logits are not finite, or a request needs more memory than there is.
            PromptError: a prompt has no tokens.
        """
        empty = next((request.key for request in requests if not len(request.token_ids)), None)
        if empty is not None:
            raise PromptError(
                f'the prompt of example "{empty}" has no tokens, so nothing can follow them; do the chat template'
                f" and the tokenizer of {self.info.name} belong to it?"
            )
        for indices in self._group_by_adapter([request.adapter for request in requests]):
            members = [requests[index] for index in indices]
            try:
                for finished in self._runner().generate(members, seed=seed, batch_size=batch_size):
                    yield [(indices[index], completion) for index, completion in finished]
            except NotFiniteError as error:
                raise self._not_finite({request.adapter for request in members}) from error

    def loglikelihood(
        self, continuations: Sequence[Continuation], *, batch_size: int | None = None
    ) -> Iterator[list[tuple[int, float]]]:
        """Compute how likely texts are behind prompts; see `LanguageModel.loglikelihood`.

        Raises:
            ModelError: its logits are not finite, or a text needs more memory than there is.
        """
        for indices in self._group_by_adapter([item.adapter for item in continuations]):
            members = [continuations[index] for index in indices]
            for finished in self._runner().loglikelihood(members, batch_size=batch_size):
                if any(math.isnan(logprob) for _, logprob in finished):
                    raise self._not_finite({item.adapter for item in members})
                yield [(indices[index], logprob) for index, logprob in finished]

    def _runner(self) -> NativeRunner | HFGenerateRunner:
        """Return the runner of this model, chosen at the first call."""
        if self._chosen is None:
            try:
                with self._adapted([None]) as (model, _):
                    probe = EquivalenceProbe(model)
            except Exception as error:  # a config may contradict itself in any way
                raise ModelError(f"{self.info.name} cannot compute anything: {error_text(error)}") from error
            if not probe.is_finite:
                raise self._not_finite([])
            if self._native.prepare(probe):
                self._chosen = self._native
            elif self._quantize != "none":
                raise self._not_quantizable()
            elif self._asked == "native":
                raise ModelError(
                    f"the native backend cannot run {self.info.architecture}: its attention does not take packed"
                    f" sequences; use {option('backend', 'hf-generate')} or leave it out"
                )
            else:
                log.warning(
                    "%s: falls back to `generate` of transformers, because the native backend cannot run packed"
                    " sequences through the attention of %s",
                    self.info.name,
                    self.info.architecture,
                )
                self._chosen = self._hf_generate
        return self._chosen

    def _check_quantize(self) -> None:
        """Refuse quantization where it does not work.

        Raises:
            ModelError: device, data type or backend do not support it.
        """
        info, quantize = self._loaded.info, self._quantize
        if not supports_int8(self._loaded.module.device):
            raise ModelError(
                f"{option('quantize', quantize)} needs a CPU with int8 instructions (AVX512-VNNI or AMX) and a torch"
                f" with oneDNN; leave it out on this device ({info.device})"
            )
        if info.dtype == "float16":
            raise ModelError(
                f"{option('quantize', quantize)} works with {option('dtype')} bfloat16 or float32, not with float16"
            )
        if self._runner() is not self._native:
            raise self._not_quantizable()

    def _not_quantizable(self) -> ModelError:
        return ModelError(
            f"{option('quantize', self._quantize)}: {self.info.architecture} runs on the backend hf-generate, which"
            " does not quantize; leave it out"
        )

    def _not_finite(self, adapters: Iterable[str | None]) -> ModelError:
        """Return the error of a model whose logits are not finite, with the adapters that requests named."""
        sources = [self._adapters[adapter][0].source for adapter in adapters if adapter is not None]
        with_adapters = f" with {' and '.join(sorted(sources))}" if sources else ""
        dtype = self.info.dtype
        remedy = f"it overflows, or its weights are damaged: try {option('dtype', 'float32')}"
        if dtype == "float32":
            remedy = "its weights are damaged, or too large: fetch or save it again"
        return ModelError(
            f"{self.info.name}{with_adapters} computes logits that are NaN or infinite in {dtype}; {remedy}"
        )

    def _group_by_adapter(self, adapters: Sequence[str | None]) -> Iterator[list[int]]:
        """Yield the indices of what can be computed together: all, but for adapters that need batches of their own."""
        alone = {adapter for adapter in set(adapters) if adapter is not None and not self._can_batch(adapter)}
        groups: dict[str | None, list[int]] = {}
        for index, adapter in enumerate(adapters):
            groups.setdefault(adapter if adapter in alone else None, []).append(index)
        yield from groups.values()

    def _can_batch(self, adapter: str) -> bool:
        if self._runner() is self._native and self._peft is not None:
            return self._native.can_batch(adapter)
        return self._adapters[adapter][0].shares_batches

    def _as_prompt(self, text: str) -> list[int]:
        """Return a text as a prompt: the tokens that every prompt begins with have activations like no others."""
        if template := chat_template_of(self.tokenizer, day=CALIBRATION_DATE):
            text = template.render(self.tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True)
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    @contextmanager
    def _adapted(self, adapters: Sequence[str | None]) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Yield the model that computes rows with these adapters, and its arguments beside the inputs."""
        if self._peft is None:
            yield self._loaded.module, {}
        elif set(adapters) == {None}:
            with self._peft.disable_adapter():
                yield self._peft, {}
        elif len(set(adapters)) == 1:
            self._peft.set_adapter(adapter_name(str(adapters[0])), inference_mode=True)
            yield self._peft, {}
        else:
            names = ["__base__" if adapter is None else adapter_name(adapter) for adapter in adapters]
            yield self._peft, {"adapter_names": names}
