"""llama.cpp: its server, in this process, with continuous batching over slots.

    DIR/llama_cpp/bin/python run_llama_cpp.py JOB.json

All prompts go to the server in one request; its slots take them in turn. The request goes over the loopback, since the
direct call of the binding is the endpoint of OpenAI's style, which gives text and no tokens.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from importlib.metadata import version

import xllamacpp
from peer import Job, read_job, tell, threads

SLOTS = 16


def main() -> None:
    job = read_job(("q4_1",))
    if job.gguf is None:
        sys.exit("llama.cpp needs a GGUF file: the job names none")
    slots = job.slots or SLOTS
    loading = time.perf_counter()
    params = xllamacpp.CommonParams()
    params.model.path = str(job.gguf)
    params.n_parallel = slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads()
    # The context is divided among the slots; each share is rounded down to whole blocks.
    params.n_ctx = slots * (-(-job.longest // 256) * 256)
    server = xllamacpp.Server(params)
    ask(server, job, [job.warm_up], 2)
    load_seconds = time.perf_counter() - loading

    begun = time.perf_counter()
    token_ids = ask(server, job, job.prompts, job.new_tokens)
    tell(
        job,
        peer="llama_cpp",
        version=f"xllamacpp {version('xllamacpp')}",
        load_seconds=load_seconds,
        begun=begun,
        token_ids=token_ids,
    )


def ask(server: xllamacpp.Server, job: Job, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
    """Answer prompts greedily; the results come in the order of the prompts."""
    body = {
        "prompt": prompts,
        "n_predict": new_tokens,
        "temperature": 0,
        "repeat_penalty": 1,
        "return_tokens": True,
        "ignore_eos": not job.end_ids,
    }
    request = urllib.request.Request(
        f"{server.listening_address}/completion",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    # No proxy: the server is in this process.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
        done = json.load(response)
    done = done if isinstance(done, list) else [done]
    return [result["tokens"] for result in sorted(done, key=lambda result: result["index"])]


if __name__ == "__main__":
    main()
