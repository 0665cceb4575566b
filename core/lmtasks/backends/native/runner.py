"""The native backend of a transformers model: the engine with the weights that a batch needs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lmtasks.backends.base import Completion, Continuation, QuantizationLoss, Request
from lmtasks.backends.native.config import EngineConfig
from lmtasks.backends.native.engine import Engine
from lmtasks.backends.native.engine_model import EngineModel
from lmtasks.backends.native.multi_lora import AdapterTokens, can_batch_adapter
from lmtasks.backends.native.prepare import Layout, engine_copy, probe_kv_bytes
from lmtasks.backends.native.scoring import score
from lmtasks.backends.native.stats import EngineStats
from lmtasks.errors import option
from lmtasks.kernels.memory import advise_pageout
from lmtasks.kernels.probe import EquivalenceProbe
from lmtasks.models.adapter_files import adapter_name
from lmtasks.models.loading import LoadedModel
from lmtasks.options import Quantize

if TYPE_CHECKING:
    from peft import PeftModel

log = logging.getLogger("lmtasks.backends")
AUDIT_TOKENS = 1024
"""Prompt tokens on which the loss by quantization is measured, at most."""
MAX_PPL_INCREASE = 0.05
"""Increase of perplexity that quantization may cost without a warning; on so few tokens it is measured to 1%."""
MAX_NATS = 700
"""Nats a token of a perplexity that is still a number."""
MULTI_ADAPTER = "multi-adapter"
"""Key of the model with all adapters beside the base, among those with one adapter merged."""


class NativeRunner:
    """Runs requests through the native engine."""

    name = "native"

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        kv_bytes: int,
        quantize: Quantize,
        calibration: Callable[[], list[list[int]]],
        config: EngineConfig,
    ) -> None:
        """Run a loaded model; `prepare` must be called once before all else.

        Args:
            loaded: the model.
            kv_bytes: memory for keys and values.
            quantize: what linear layers are quantized to.
            calibration: returns token ids of calibration texts, for int8.
            config: limits of the engine.
        """
        self._loaded, self._kv_bytes, self._quantize, self._config = loaded, kv_bytes, quantize, config
        self._calibration = calibration
        self._bytes_per_token = 0
        self._models: dict[str, EngineModel] = {}
        self._stats: EngineStats | None = None
        self._peft: PeftModel | None = None
        self.quantization_loss: QuantizationLoss | None = None

    def prepare(self, probe: EquivalenceProbe) -> bool:
        """Prepare the model; return whether the engine can run it."""
        # A quantized model differs by more than a probe can allow: its loss is measured on prompts.
        layout: Layout = "packed" if self._quantize == "none" else "shared"
        prepared = engine_copy(self._loaded.module, layout=layout)
        bytes_per_token = probe_kv_bytes(probe, prepared)
        if bytes_per_token is None:
            return False
        self._bytes_per_token = bytes_per_token
        if layout == "packed":
            self._models = {str(None): EngineModel(prepared, bytes_per_token)}
        return True

    def attached(self, peft: PeftModel) -> None:
        """Use a model on which another adapter was put."""
        self._peft = peft
        self._models.pop(MULTI_ADAPTER, None)

    def can_batch(self, adapter: str) -> bool:
        """Return whether an adapter's requests can be in one batch with those of others."""
        return self._peft is not None and can_batch_adapter(self._peft, adapter_name(adapter))

    def generate(
        self, requests: Sequence[Request], *, seed: int, batch_size: int | None
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Answer requests; see `LanguageModel.generate`. A generator that is closed aborts what is unfinished.

        Raises:
            ModelError: a single request needs more memory than there is.
            NotFiniteError: the logits of a request are NaN or infinite.
        """
        model = self._model({request.adapter for request in requests})
        self._measure_quantization(model, requests)
        engine = Engine(
            model,
            self._loaded.tokenizer,
            self._loaded.end_ids,
            kv_bytes=self._kv_bytes,
            max_batch=batch_size,
            config=self._config,
        )
        indices: dict[int, int] = {}
        try:
            for index, request in enumerate(requests):
                indices[engine.add(request, seed=seed)] = index
            while engine.has_unfinished:
                if finished := engine.step():
                    yield [(indices.pop(id), completion) for id, completion in finished]
        finally:
            for id in indices:
                engine.abort(id)
            self._stats = engine.stats()

    def loglikelihood(
        self, continuations: Sequence[Continuation], *, batch_size: int | None
    ) -> Iterator[list[tuple[int, float]]]:
        """Compute log-likelihoods; see `LanguageModel.loglikelihood`.

        Raises:
            ModelError: a single text needs more memory than there is.
        """
        model = self._model({item.adapter for item in continuations}, prefer_loaded=True)
        yield from score(model, continuations, kv_bytes=self._kv_bytes, max_batch=batch_size, config=self._config)

    def stats(self) -> EngineStats | None:
        """Return the statistics of the engine that the last call of `generate` used; None: there was none."""
        return self._stats

    def _model(self, adapters: set[str | None], *, prefer_loaded: bool = False) -> EngineModel:
        """Return the base model, the base with one adapter merged, or the base with several adapters beside it.

        The last one is kept; each has weights of its own.

        Args:
            adapters: adapters that requests name.
            prefer_loaded: whether the one with several adapters may stand for a single one, if it is there. It rounds
                otherwise: completions never depend on what was asked before.
        """
        name = str(next(iter(adapters))) if len(adapters) == 1 else MULTI_ADAPTER
        can_stand_in = prefer_loaded and MULTI_ADAPTER in self._models
        if can_stand_in and all(adapter is None or self.can_batch(adapter) for adapter in adapters):
            name = MULTI_ADAPTER
        if name not in self._models:
            self._models = {}  # freed before the next is made
            adapter_tokens: AdapterTokens | None = {} if name == MULTI_ADAPTER else None
            merged = None if name in (MULTI_ADAPTER, str(None)) else adapter_name(name)
            layout: Layout = "packed" if self._quantize == "none" else "int8"
            texts = self._calibration() if layout == "int8" else []
            self._models = {name: self._prepared(merged, adapter_tokens, layout, texts)}
        return self._models[name]

    def _prepared(
        self,
        merged: str | None,
        adapter_tokens: AdapterTokens | None,
        layout: Layout,
        texts: Sequence[Sequence[int]] = (),
    ) -> EngineModel:
        module: Any = engine_copy(
            self._loaded.module, merged=merged, adapter_tokens=adapter_tokens, layout=layout, texts=texts
        )
        return EngineModel(module, self._bytes_per_token, adapter_tokens)

    def _measure_quantization(self, model: EngineModel, requests: Sequence[Request]) -> None:
        """Compare the perplexity of the prompts' own tokens with and without quantization."""
        if self._quantize == "none" or not requests:
            return
        texts, tokens = [], 0
        for request in requests:
            ids = request.token_ids[: AUDIT_TOKENS - tokens]
            if len(ids) > 1:
                texts.append(Continuation(ids[:1], ids[1:], request.adapter))
                tokens += len(ids) - 1
        if not texts:
            return
        merged = requests[0].adapter if model.adapter_tokens is None else None
        adapter_tokens: AdapterTokens | None = None if model.adapter_tokens is None else {}
        exact = self._prepared(adapter_name(merged) if merged else None, adapter_tokens, "shared")
        perplexities = []
        for each in (exact, model):
            scored = score(each, texts, kv_bytes=self._kv_bytes, config=self._config)
            logprob = sum(value for finished in scored for _, value in finished)
            perplexities.append(math.exp(min(-logprob / tokens, MAX_NATS)))
        self.quantization_loss = QuantizationLoss(tokens, *perplexities)
        for weight in self._loaded.module.parameters():
            advise_pageout(weight)
        if not self.quantization_loss.change <= MAX_PPL_INCREASE:  # or not a number at all
            log.warning(
                "quantization to int8 raises the perplexity of prompts by %.0f%%: run this model without %s",
                100 * self.quantization_loss.change,
                option("quantize"),
            )
