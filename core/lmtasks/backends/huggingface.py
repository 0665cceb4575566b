"""A model of transformers behind the door: the engine where it can run it, else padded batches and `generate`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import PreTrainedTokenizerBase

from lmtasks.backends.base import Completion, Continuation, OnText, QuantizationLoss, Request
from lmtasks.backends.hf_generate import HFGenerateRunner
from lmtasks.backends.native.engine import MOST_MEASURED, MOST_SEQUENCES, Engine
from lmtasks.backends.native.multi_lora import Routes, is_routable
from lmtasks.backends.native.prepare import Layout, Trial, engine_copy
from lmtasks.errors import AdapterError, ModelError, PromptError, option
from lmtasks.kernels.calibration import CALIBRATION_TEXTS
from lmtasks.kernels.linear import supports_int8
from lmtasks.kernels.memory import advise_pageout
from lmtasks.models.adapter_files import Adapter, adapter_name
from lmtasks.models.finite import NotFiniteError
from lmtasks.models.info import ModelInfo, Quantize
from lmtasks.models.load_errors import said
from lmtasks.models.loading import LoadedModel
from lmtasks.models.quiet import quiet
from lmtasks.prompts.chat_template import chat_template_of

if TYPE_CHECKING:
    from peft import PeftModel

log = logging.getLogger("lmtasks.backends")
MEMORY_BYTES = 2**30
"""For keys and values, unless asked otherwise."""
PROBE = "The ferry leaves the harbour at nine, and the last one returns at"
"""What an adapter is tried on."""
CALIBRATION_DATE = date(2000, 1, 1)
"""For chat templates that tell the date: what is calibrated must not depend on the day."""
ROUNDED_TOKENS = 1024
"""Of prompts on which rounding is measured, at most."""
MUCH = 0.05
"""Of perplexity that rounding may cost without a warning; measured on so few tokens, it is 1% off."""
MOST_NATS = 700
"""Per token, of a perplexity that is still a number."""
SEVERAL = "several"
"""The engine of the base with all adapters beside it, among those of one adapter each."""


class TransformersModel:
    """A causal language model of any architecture that transformers ships."""

    def __init__(self, loaded: LoadedModel, *, memory_bytes: int = MEMORY_BYTES, quantize: Quantize = "none") -> None:
        """Take a loaded model, how much memory keys and values may take, and to what layers are rounded.

        Raises:
            ModelError: this model cannot be rounded, or not on its device.
        """
        self._loaded, self._memory_bytes, self._quantize = loaded, memory_bytes, quantize
        self._bytes_per_token: int | None | Literal["unknown"] = "unknown"
        self._engines: dict[str, Engine] = {}
        self._rounding: QuantizationLoss | None = None
        self._peft: PeftModel | None = None
        self._adapters: dict[str, tuple[Adapter, float]] = {}
        self._padded = HFGenerateRunner(loaded, self._adapted)
        if quantize != "none" and not supports_int8(loaded.module.device):
            raise ModelError(
                f"{option('quantize', quantize)} needs a CPU with int8 instructions (AVX512-VNNI or AMX), and a torch"
                f" with oneDNN; leave it out on this one ({loaded.info.device})"
            )
        if quantize != "none" and loaded.info.dtype == "float16":
            raise ModelError(
                f"{option('quantize', quantize)} goes with {option('dtype')} bfloat16 or float32, not with float16"
            )
        if quantize != "none" and self.engine != "slots":
            raise ModelError(
                f"{option('quantize', quantize)}: {loaded.info.architecture} is run by transformers' generate, which"
                " does not quantize; leave it out"
            )

    @property
    def info(self) -> ModelInfo:
        """What a run records of it."""
        return replace(self._loaded.info, quantize=self._quantize)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's own tokenizer."""
        return self._loaded.tokenizer

    @property
    def rounding(self) -> QuantizationLoss | None:
        """What rounding changes, measured on prompts of the last call; None: nothing is rounded."""
        return self._rounding

    @property
    def engine(self) -> str:
        """What answers prompts: "slots", the engine, or "generate", that of transformers."""
        if self._bytes_per_token == "unknown":
            module = self._loaded.module
            # What is rounded differs by more than a trial can allow: its loss is measured on prompts.
            layout: Layout = "packed" if self._quantize == "none" else "shared"
            try:
                with self._adapted([None]) as (model, _):
                    trial = Trial(model)
            except Exception as error:  # what a config says may contradict itself in any way
                raise ModelError(f"{self.info.name} cannot compute anything: {said(error)}") from error
            if not trial.is_finite:
                raise self._not_finite([])
            packed = engine_copy(module, layout=layout)
            self._bytes_per_token = trial.bytes_per_token(packed)
            if self._bytes_per_token is not None and layout == "packed":
                self._engines = {str(None): self._make_engine(packed)}
        return "generate" if self._bytes_per_token is None else "slots"

    def attach(self, adapter: Adapter) -> float:
        """Take an adapter into memory as the door says."""
        if adapter.id not in self._adapters:
            from lmtasks.models.adapter_attach import attach, effect  # peft takes a second to import

            # peft draws numbers for weights that it then replaces: nobody's draws are to change by that.
            with quiet(), torch.random.fork_rng(devices=[]):
                self._peft = attach(self._peft or self._loaded.module, adapter, self.info)
            words = self.tokenizer.encode(PROBE, add_special_tokens=False)
            try:
                moved = effect(self._peft, adapter, words)
            except NotFiniteError as error:
                raise self._not_finite([]) from error
            if not math.isfinite(moved):
                raise AdapterError(f"{adapter.source}: with this adapter {self.info.name} computes what is no number")
            self._adapters[adapter.id] = adapter, moved
            self._engines.pop(SEVERAL, None)
        return self._adapters[adapter.id][1]

    def generate(
        self,
        requests: Sequence[Request],
        *,
        seed: int,
        batch_size: int | None = None,
        on_text: OnText | None = None,
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Answer prompts as the door says.

        Raises:
            ModelError: its logits are not finite.
            PromptError: a prompt has no tokens.
        """
        empty = next((request.key for request in requests if not len(request.token_ids)), None)
        if empty is not None:
            raise PromptError(
                f'the prompt of example "{empty}" has no tokens, so that nothing can follow them; do the chat template'
                f" and the tokenizer of {self.info.name} belong to it?"
            )
        for places in self._together([request.adapter for request in requests]):
            own = [requests[place] for place in places]
            adapters = {request.adapter for request in own}
            if self.engine == "slots":
                engine = self._engine(adapters)
                self._measure_rounding(engine, own)
                most = batch_size or MOST_SEQUENCES
                answered = engine.generate(own, seed=seed, most_sequences=most, on_text=on_text)
            else:
                answered = self._padded.generate(own, seed=seed, batch_size=batch_size, on_text=on_text)
            try:
                for finished in answered:
                    yield [(places[at], answer) for at, answer in finished]
            except NotFiniteError as error:
                raise self._not_finite(adapters) from error

    def loglikelihood(
        self, continuations: Sequence[Continuation], *, batch_size: int | None = None
    ) -> Iterator[list[tuple[int, float]]]:
        """Measure texts behind prompts as the door says."""
        for places in self._together([item.adapter for item in continuations]):
            own = [continuations[place] for place in places]
            if self.engine == "slots":
                engine = self._engine({item.adapter for item in own}, several=True)
                measured = engine.measure(own, most_sequences=batch_size or MOST_MEASURED)
            else:
                measured = self._padded.measure(own, batch_size=batch_size)
            for finished in measured:
                if any(math.isnan(logprob) for _, logprob in finished):
                    raise self._not_finite({item.adapter for item in own})
                yield [(places[at], logprob) for at, logprob in finished]

    def _not_finite(self, adapters: Iterable[str | None]) -> ModelError:
        """Return the error of a model whose logits are no numbers, with the adapters that it answered with."""
        sources = [self._adapters[adapter][0].source for adapter in adapters if adapter is not None]
        beside = f" with {' and '.join(sorted(sources))}" if sources else ""
        dtype = self.info.dtype
        way_out = f"it overflows, or its weights are damaged: try {option('dtype', 'float32')}"
        if dtype == "float32":
            way_out = "its weights are damaged, or too large: fetch or save it again"
        return ModelError(f"{self.info.name}{beside} computes logits that are NaN or infinite in {dtype}; {way_out}")

    def _together(self, adapters: Sequence[str | None]) -> Iterator[list[int]]:
        """Yield the places of what can be computed together: all, but for adapters that must be alone."""
        alone = {adapter for adapter in set(adapters) if adapter is not None and not self._shares(adapter)}
        groups: dict[str | None, list[int]] = {}
        for place, adapter in enumerate(adapters):
            groups.setdefault(adapter if adapter in alone else None, []).append(place)
        yield from groups.values()

    def _shares(self, adapter: str) -> bool:
        if self.engine == "slots" and self._peft is not None:
            return is_routable(self._peft, adapter_name(adapter))
        return self._adapters[adapter][0].shares_batches

    def _engine(self, adapters: set[str | None], *, several: bool = False) -> Engine:
        """Return the engine of the base, of the base with one adapter merged, or with several beside it.

        The last one is kept; each has weights of its own.

        Args:
            adapters: that answer.
            several: whether the one of several will do for a single adapter, if it is there. It rounds otherwise: texts
                are never to depend on what was asked before.
        """
        name = str(next(iter(adapters))) if len(adapters) == 1 else SEVERAL
        if (
            several
            and SEVERAL in self._engines
            and all(adapter is None or self._shares(adapter) for adapter in adapters)
        ):
            name = SEVERAL  # answers a single one as well, and is there
        if name not in self._engines:
            self._engines = {}
            layout: Layout = "packed" if self._quantize == "none" else "int8"
            routes: Routes | None = {} if name == SEVERAL else None
            merged = None if name in (SEVERAL, str(None)) else adapter_name(name)
            texts = [self._as_asked(text) for text in CALIBRATION_TEXTS]
            packed = engine_copy(self._loaded.module, merged=merged, routes=routes, layout=layout, texts=texts)
            self._engines = {name: self._make_engine(packed, routes)}
        return self._engines[name]

    def _as_asked(self, text: str) -> list[int]:
        """Return a text as a prompt: the tokens that every one begins with have activations like no others."""
        if template := chat_template_of(self.tokenizer, day=CALIBRATION_DATE):
            text = template.render(self.tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True)
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _make_engine(self, packed: Any, routes: Routes | None = None) -> Engine:
        return Engine(
            packed,
            self._loaded.tokenizer,
            self._loaded.end_ids,
            memory_bytes=self._memory_bytes,
            bytes_per_token=int(self._bytes_per_token or 0),
            routes=routes,
        )

    def _measure_rounding(self, engine: Engine, requests: Sequence[Request]) -> None:
        """Compare the perplexity of prompts' own tokens with and without rounding."""
        if self._quantize == "none" or not requests:
            return
        texts, tokens = [], 0
        for request in requests:
            ids = request.token_ids[: ROUNDED_TOKENS - tokens]
            if len(ids) > 1:
                texts.append(Continuation(ids[:1], ids[1:], request.adapter))
                tokens += len(ids) - 1
        if not texts:
            return
        found = []
        merged = engine.routes is None and requests[0].adapter
        routes: Routes | None = None if engine.routes is None else {}
        exact = engine_copy(
            self._loaded.module, merged=adapter_name(merged) if merged else None, routes=routes, layout="shared"
        )
        for each in (self._make_engine(exact, routes), engine):
            logprob = sum(value for finished in each.measure(texts) for _, value in finished)
            found.append(math.exp(min(-logprob / tokens, MOST_NATS)))
        self._rounding = QuantizationLoss(tokens, *found)
        for weight in self._loaded.module.parameters():
            advise_pageout(weight)
        if not self._rounding.change <= MUCH:  # or no number at all
            log.warning(
                "int8 quantization raises the perplexity of prompts by %.0f%%: this model is better without %s",
                100 * self._rounding.change,
                option("quantize"),
            )

    @contextmanager
    def _adapted(self, adapters: Sequence[str | None]) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Give the model that answers rows with these adapters, and what it has to be told beside its inputs."""
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
