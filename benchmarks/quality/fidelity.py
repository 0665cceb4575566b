"""Fidelity of the engine: are its texts those of transformers' `generate`, and what does quantization cost?

    python benchmarks/quality/fidelity.py [--data FILE] [--task TASK] [--examples N] [--new-tokens N] [--model MODEL]
        [--json FILE]

In float32, each text of the engine is to be that of `generate`; where one is not, the
logits at the first difference say by how much the two best tokens differ. In bfloat16, which rounds, the share of texts
that are those of float32 is compared with `generate`'s own share. For int8 it is the perplexity of all prompts, token
by token, and ROUGE of the answers against the references.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

import lmtasks
from lmtasks import RunOptions
from lmtasks.backends import Continuation, Request
from lmtasks.backends.huggingface import TransformersModel
from lmtasks.backends.native.engine import Engine
from lmtasks.backends.native.engine_model import EngineModel
from lmtasks.data import DataRequest, load_dataset
from lmtasks.plugins import Registry
from lmtasks.prompts import Renderer
from lmtasks.task import SamplingParams

BATCH = 16
"""Batch size of `generate`."""
NEAR = 1e-3
"""Difference of the two best logits that is too small for float32 to distinguish reliably."""


def main() -> None:
    settings = parse()
    task, _ = Registry().task(settings.task)
    examples = load_dataset(task, DataRequest(data=settings.data, limit=settings.examples)).examples
    results: dict[str, object] = {"examples": len(examples), "new_tokens": settings.new_tokens}

    exact = load(settings, "float32")
    renderer = Renderer(task, exact.tokenizer)
    prompts = [tuple(renderer.render(example).token_ids) for example in examples]
    expected = by_generate(exact, prompts, settings.new_tokens)
    for batch in (64, 7):
        texts = by_engine(exact, prompts, settings.new_tokens, batch)
        gaps = [gap(exact, *three) for three in zip(prompts, texts, expected, strict=True) if three[1] != three[2]]
        near = sum(value < NEAR for value in gaps)
        results[f"float32, {batch} at once"] = {"same": len(texts) - len(gaps), "near ties": near, "gaps": sorted(gaps)}
        print(
            f"float32, {batch} at once: {len(texts) - len(gaps)} of {len(texts)} texts are those of generate;", end=""
        )
        print(f" {len(gaps)} differ, {near} of them from a near tie (below {NEAR})", flush=True)

    rough = load(settings, "bfloat16")
    for name, texts in (
        ("generate", by_generate(rough, prompts, settings.new_tokens)),
        ("engine", by_engine(rough, prompts, settings.new_tokens, 64)),
    ):
        same = [text == right for text, right in zip(texts, expected, strict=True)]
        alike = sum(agreement(*pair) for pair in zip(texts, expected, strict=True)) / len(texts)
        results[f"bfloat16, {name}"] = {"same": sum(same), "share of tokens before the first difference": alike}
        print(f"bfloat16, {name}: {sum(same)} of {len(same)} texts are those of float32;", end="")
        print(f" {100 * alike:.1f}% of their tokens come before the first difference", flush=True)

    quantized = load(settings, "bfloat16", quantize="int8")
    losses = [token_losses(model, prompts) for model in (exact, rough, quantized)]
    for name, deltas in (
        ("bfloat16 against float32", losses[1] - losses[0]),
        ("int8 against bfloat16", losses[2] - losses[1]),
    ):
        change, error = (
            100 * math.expm1(float(deltas.mean())),
            100 * float(deltas.std()) / math.sqrt(len(deltas)),
        )
        results[f"perplexity, {name}"] = {"change_percent": change, "standard_error": error, "tokens": len(deltas)}
        print(
            f"perplexity, {name}: {change:+.3f}% (standard error {error:.3f}) on {len(deltas):,} tokens",
            flush=True,
        )

    with tempfile.TemporaryDirectory() as folder:
        options = RunOptions(data=settings.data, limit=settings.examples, metrics=("rouge",), output_dir=folder)
        for name, model in (("bfloat16", rough), ("int8", quantized)):
            run = lmtasks.run(settings.task, replace(options, quantize=model.info.quantize), model=model)
            for score in run.scores:
                results[f"{score.name}, {name}"] = {"value": score.value, "interval": [score.low, score.high]}
                print(f"{score.name}, {name}: {score.value:.2f} ({score.low:.2f} to {score.high:.2f})", flush=True)
    if settings.json:
        results["versions"] = {name: version(name) for name in ("lmtasks", "torch", "transformers")}
        settings.json.write_text(json.dumps(results, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="summarization/dialogue")
    parser.add_argument("--data", default="demo")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def load(settings: argparse.Namespace, dtype: str, **options: object) -> TransformersModel:
    model = lmtasks.load_model(settings.model, RunOptions(dtype=dtype, device="cpu", **options))
    assert model.backend == "native"
    return model


def by_engine(
    model: TransformersModel, prompts: Sequence[tuple[int, ...]], new_tokens: int, batch: int
) -> list[list[int]]:
    """Return the tokens that the native engine generates."""
    written: dict[int, list[int]] = {}
    finish = Engine._finish

    def keep(engine: Engine, sequence):
        written[sequence.id] = sequence.new_ids
        finish(engine, sequence)

    Engine._finish = keep
    try:
        generation = SamplingParams(max_new_tokens=new_tokens)
        requests = [Request(str(index), ids, generation) for index, ids in enumerate(prompts)]
        list(model.generate(requests, seed=0, batch_size=batch))
    finally:
        Engine._finish = finish
    return [written[index] for index in range(len(prompts))]


@torch.inference_mode()
def by_generate(model: TransformersModel, prompts: Sequence[tuple[int, ...]], new_tokens: int) -> list[list[int]]:
    """Return the tokens that transformers' own generate writes, in batches of similar length."""
    loaded = model._loaded
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    written: dict[int, list[int]] = {}
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        width = len(prompts[places[0]])
        ids = torch.tensor([[loaded.pad_id] * (width - len(prompts[index])) + [*prompts[index]] for index in places])
        mask = torch.tensor([[0] * (width - len(prompts[index])) + [1] * len(prompts[index]) for index in places])
        output = loaded.module.generate(ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False)
        for index, row in zip(places, output[:, width:].tolist(), strict=True):
            end = next((index for index, token in enumerate(row) if token in loaded.end_ids), len(row) - 1)
            written[index] = row[: end + 1]
    return [written[index] for index in range(len(prompts))]


def agreement(text: Sequence[int], right: Sequence[int]) -> float:
    """Return which share of the right text comes before the first difference."""
    same = next((index for index, pair in enumerate(zip(text, right, strict=False)) if pair[0] != pair[1]), None)
    return 1.0 if same is None else same / len(right)


@torch.inference_mode()
def gap(model: TransformersModel, prompt: Sequence[int], text: Sequence[int], right: Sequence[int]) -> float:
    """Return by how much the two best logits differ where two texts part."""
    index = next(index for index, pair in enumerate(zip(text, right, strict=False)) if pair[0] != pair[1])
    logits = model._loaded.module(torch.tensor([[*prompt, *right[:index]]]), use_cache=False).logits[0, -1]
    best, second = logits.float().topk(2).values.tolist()
    return best - second


def token_losses(model: TransformersModel, prompts: Sequence[tuple[int, ...]]) -> torch.Tensor:
    """Return the negative log-probability of each token of all prompts but their first, by the native engine."""
    losses: list[torch.Tensor] = []
    compute = EngineModel.compute

    def keep(engine_model: EngineModel, batch):
        logits = compute(engine_model, batch)
        logprobs = logits.float().log_softmax(-1)
        targets = torch.tensor([prompt[position + 1] for position in batch.positions])
        losses.append(-logprobs.gather(-1, targets[:, None])[:, 0])
        return logits

    EngineModel.compute = keep
    try:
        for prompt in prompts:
            list(model.loglikelihood([Continuation(prompt[:1], prompt[1:])]))
    finally:
        EngineModel.compute = compute
    return torch.cat(losses)


if __name__ == "__main__":
    main()
