"""transformers' `generate`: prompts sorted by length, in padded batches.

    python run_transformers.py JOB.json

The job's `slots` is the size of a batch.
"""

from __future__ import annotations

import time

import torch
import transformers
from peer import Job, read_job, tell
from transformers import AutoModelForCausalLM, LlamaForCausalLM  # its import belongs to loading

BATCH = 16
PAD = 0


def main() -> None:
    job = read_job(("float32", "bfloat16"))
    transformers.logging.set_verbosity_error()
    loading = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(job.model_folder, dtype=getattr(torch, job.variant)).eval()
    model.generation_config.eos_token_id = job.end_ids or None
    model.generation_config.pad_token_id = PAD
    answer(model, job, [job.warm_up], 2)
    load_seconds = time.perf_counter() - loading

    begun = time.perf_counter()
    token_ids = answer(model, job, job.prompts, job.new_tokens)
    tell(
        job,
        peer="transformers",
        version=f"transformers {transformers.__version__}",
        load_seconds=load_seconds,
        begun=begun,
        token_ids=token_ids,
    )


@torch.inference_mode()
def answer(model: LlamaForCausalLM, job: Job, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
    """Answer prompts greedily, the longest first."""
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    size = job.slots or BATCH
    answers: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), size):
        places = order[start : start + size]
        width = max(len(prompts[index]) for index in places)
        ids = [[PAD] * (width - len(prompts[index])) + prompts[index] for index in places]
        mask = [[0] * (width - len(prompts[index])) + [1] * len(prompts[index]) for index in places]
        output = model.generate(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            max_new_tokens=new_tokens,
            do_sample=False,
        )
        for index, row in zip(places, output[:, width:].tolist(), strict=True):
            answers[index] = row
    return answers


if __name__ == "__main__":
    main()
