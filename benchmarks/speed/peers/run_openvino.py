"""OpenVINO GenAI: continuous batching, on a model that optimum-intel converted.

    DIR/openvino/bin/python run_openvino.py JOB.json

Its own reader of GGUF files gives wrong text for the default model, so that it is not used.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy
import openvino
import openvino_genai
from peer import Job, converted, read_job, tell, threads


@dataclass(frozen=True)
class Variant:
    """How weights are kept and what is computed in."""

    weights: str
    """As `optimum-cli export openvino --weight-format` takes it."""
    properties: dict[str, object]


VARIANTS = {
    "bfloat16": Variant("fp16", {"INFERENCE_PRECISION_HINT": "bf16", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}),
    # The rest is left to the plugin: its own group size of dynamic quantization was the fastest but for one made for
    # the width of the default model.
    "int8": Variant("int8", {}),
}
SLOTS = 64
BATCHED_TOKENS = 2048
"""Prompt tokens in one step; the default of 256 was slower by an eighth."""
CACHE_GIB = 2


def main() -> None:
    job = read_job(tuple(VARIANTS))
    variant = VARIANTS[job.variant]
    folder = converted(job, f"openvino-{variant.weights}", lambda into: convert(job, variant, into))
    loading = time.perf_counter()
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_seqs = job.slots or SLOTS
    scheduler.max_num_batched_tokens = BATCHED_TOKENS
    scheduler.cache_size = CACHE_GIB
    scheduler.enable_prefix_caching = True
    properties = {"INFERENCE_NUM_THREADS": threads(), "NUM_STREAMS": 1}
    pipeline = openvino_genai.ContinuousBatchingPipeline(
        str(folder), scheduler, "CPU", {**properties, **variant.properties}
    )
    answer(pipeline, job, [job.warm_up], 2)
    load_seconds = time.perf_counter() - loading

    begun = time.perf_counter()
    token_ids = answer(pipeline, job, job.prompts, job.new_tokens)
    tell(
        job,
        peer="openvino",
        version=f"openvino-genai {version('openvino-genai')}",
        load_seconds=load_seconds,
        begun=begun,
        token_ids=token_ids,
    )


def answer(
    pipeline: openvino_genai.ContinuousBatchingPipeline, job: Job, prompts: list[list[int]], new_tokens: int
) -> list[list[int]]:
    """Answer prompts greedily, all handed over at once."""
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = new_tokens
    config.do_sample = False
    config.ignore_eos = not job.end_ids
    config.stop_token_ids = set(job.end_ids)
    asked = [openvino.Tensor(numpy.array([prompt], dtype=numpy.int64)) for prompt in prompts]
    done = pipeline.generate(asked, [config] * len(prompts))
    return [list(result.m_generation_ids[0]) for result in done]


def convert(job: Job, variant: Variant, into: Path) -> None:
    """Convert in a process of its own, so that its memory does not count as the engine's."""
    command = [str(Path(sys.executable).with_name("optimum-cli")), "export", "openvino", "--task"]
    command += ["text-generation-with-past", "--weight-format", variant.weights]
    subprocess.run([*command, "--model", str(job.model_folder), str(into)], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
