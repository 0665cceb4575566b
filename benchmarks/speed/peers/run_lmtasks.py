"""lmtasks itself, through the same interface as its runs.

    python run_lmtasks.py JOB.json

The job's `model` is a name that lmtasks knows; what is laid out once for the hardware belongs to loading.
"""

from __future__ import annotations

import time
from importlib.metadata import version

from peer import Job, read_job, tell

import lmtasks
from lmtasks import RunOptions
from lmtasks.backends import Completion, LanguageModel, Request
from lmtasks.task import SamplingParams

VARIANTS = {
    "float32": RunOptions(dtype="float32"),
    "bfloat16": RunOptions(dtype="bfloat16"),
    "int8": RunOptions(dtype="bfloat16", quantize="int8"),
}


def main() -> None:
    job = read_job(tuple(VARIANTS))
    loading = time.perf_counter()
    model = lmtasks.load_model(job.model or job.model_folder, VARIANTS[job.variant])
    # An end token is to end an answer only where the job says so.
    object.__setattr__(model._loaded, "end_ids", tuple(job.end_ids))
    if model.backend == "hf-generate":
        model._loaded.module.generation_config.eos_token_id = job.end_ids or None
    answer(model, job, [job.warm_up], 2)
    load_seconds = time.perf_counter() - loading

    begun = time.perf_counter()
    completions = answer(model, job, job.prompts, job.new_tokens)
    tell(
        job,
        peer="lmtasks",
        version=f"lmtasks {version('lmtasks')}, backend {model.backend}",
        load_seconds=load_seconds,
        begun=begun,
        texts=[completion.text for completion in completions],
        new_tokens=sum(completion.tokens for completion in completions),
    )


def answer(model: LanguageModel, job: Job, prompts: list[list[int]], new_tokens: int) -> list[Completion]:
    """Answer prompts greedily."""
    generation = SamplingParams(max_new_tokens=new_tokens)
    requests = [Request(str(index), tuple(prompt), generation) for index, prompt in enumerate(prompts)]
    done = dict(pair for finished in model.generate(requests, seed=0, batch_size=job.slots) for pair in finished)
    return [done[index] for index in range(len(prompts))]


if __name__ == "__main__":
    main()
