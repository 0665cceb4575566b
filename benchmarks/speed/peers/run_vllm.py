"""vLLM for CPU: its offline engine, with all prompts handed over at once.

DIR/vllm/bin/python run_vllm.py JOB.json
"""

from __future__ import annotations

import os
import sys
import time

from peer import read_job, tell

CACHE_GIB = 2


def main() -> None:
    job = read_job(("bfloat16",))
    # The engine in this process: its memory is ours, and no answer travels between processes.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(CACHE_GIB)
    os.environ["VLLM_CACHE_ROOT"] = str(job.work / "vllm")  # what torch compiled is kept between calls
    os.environ["VLLM_NO_USAGE_STATS"] = os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["VLLM_LOGGING_STREAM"] = "ext://sys.stderr"
    loading = time.perf_counter()
    import vllm

    settings = {"max_num_seqs": job.slots} if job.slots else {}
    model = vllm.LLM(
        str(job.model_folder), dtype=job.variant, max_model_len=job.longest + 1, disable_log_stats=True, **settings
    )

    def answer(prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        sampling = vllm.SamplingParams(
            temperature=0,
            max_tokens=new_tokens,
            ignore_eos=not job.end_ids,
            stop_token_ids=job.end_ids or None,
            detokenize=False,
        )
        done = model.generate([{"prompt_token_ids": prompt} for prompt in prompts], sampling, use_tqdm=False)
        return [list(result.outputs[0].token_ids) for result in done]

    answer([job.warm_up], 2)
    load_seconds = time.perf_counter() - loading
    begun = time.perf_counter()
    token_ids = answer(job.prompts, job.new_tokens)
    tell(job, peer="vllm", version=vllm.__version__, load_seconds=load_seconds, begun=begun, token_ids=token_ids)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
