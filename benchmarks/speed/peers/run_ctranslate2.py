"""CTranslate2: batches of prompts sorted by length, as `Generator.generate_batch` makes them.

DIR/ctranslate2/bin/python run_ctranslate2.py JOB.json
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import ctranslate2
from peer import Job, converted, read_job, tell, threads

BATCH = 16


def main() -> None:
    job = read_job(("int8", "float32"))
    folder = converted(job, f"ctranslate2-{job.variant}", lambda into: convert(job, into))
    loading = time.perf_counter()
    generator = ctranslate2.Generator(
        str(folder), device="cpu", compute_type=job.variant, inter_threads=1, intra_threads=threads()
    )
    # It takes tokens as text; its own vocabulary file says which text each id has.
    vocabulary = read_vocabulary(folder)
    answer(generator, vocabulary, job, [job.warm_up], 2)
    load_seconds = time.perf_counter() - loading

    begun = time.perf_counter()
    token_ids = answer(generator, vocabulary, job, job.prompts, job.new_tokens)
    tell(
        job,
        peer="ctranslate2",
        version=ctranslate2.__version__,
        load_seconds=load_seconds,
        begun=begun,
        token_ids=token_ids,
    )


def answer(
    generator: ctranslate2.Generator, vocabulary: list[str], job: Job, prompts: list[list[int]], new_tokens: int
) -> list[list[int]]:
    """Answer prompts greedily; the results come in the order of the prompts."""
    done = generator.generate_batch(
        [[vocabulary[token] for token in prompt] for prompt in prompts],
        max_batch_size=job.slots or BATCH,
        max_length=new_tokens,
        min_length=0 if job.end_ids else new_tokens,
        end_token=job.end_ids or None,
        return_end_token=True,
        include_prompt_in_result=False,
        beam_size=1,
        sampling_topk=1,
    )
    return [result.sequences_ids[0] for result in done]


def read_vocabulary(folder: Path) -> list[str]:
    """Return the text of each token id, as the conversion wrote it."""
    return json.loads((folder / "vocabulary.json").read_text())


def convert(job: Job, into: Path) -> None:
    """Convert in a process of its own, so that its memory does not count as the engine's."""
    code = (
        "import sys; from ctranslate2.converters import TransformersConverter;"
        "TransformersConverter(sys.argv[1]).convert(sys.argv[2], quantization=sys.argv[3])"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(job.model_folder), str(into), job.variant], check=True, stdout=sys.stderr
    )


if __name__ == "__main__":
    main()
