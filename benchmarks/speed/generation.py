"""Generation: examples per second of lmtasks and of transformers' `generate` at its best batch, in turn.

    python benchmarks/speed/generation.py [--data FILE] [--task TASK] [--examples N] [--shots N] [--new-tokens N]
        [--ends] [--model MODEL] [--dtype DTYPE] [--batches 8,16,32] [--rounds N] [--json FILE]

Each side runs in a process of its own, as it comes: the model is loaded, and the clock starts with the first prompt.
Both get the same token ids, and write as many tokens each unless --ends lets an end token end an answer. `generate`
gets its prompts sorted by length, in batches of several sizes, of which the fastest counts.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch

import lmtasks
from lmtasks import Generation, RunOptions
from lmtasks.data import DataRequest, load_dataset
from lmtasks.inference import Request
from lmtasks.plugins import Registry
from lmtasks.prompts import Renderer


def main() -> None:
    settings = parse()
    if settings.side:
        print(json.dumps(measure(settings)))
        return
    sides = ["lmtasks", *(f"generate {size}" for size in settings.batches.split(","))]
    rounds: dict[str, list[dict]] = {side: [] for side in sides}
    for number in range(settings.rounds):
        for side in sides:
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rounds[side].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number + 1}, {side}: {rounds[side][-1]['examples_per_second']:.2f} examples/s", flush=True)
    report(settings, rounds)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="summarization/dialogue")
    parser.add_argument("--data", default="demo")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--shots", type=int, default=0)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--ends", action="store_true")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--batches", default="8,16,32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    return parser.parse_args()


def prompts(settings: argparse.Namespace, tokenizer: object) -> list[tuple[int, ...]]:
    """Return rendered prompts, over again from the first where there are too few examples."""
    task, _ = Registry().task(settings.task)
    examples = load_dataset(task, DataRequest(data=settings.data)).examples
    shown = examples[len(examples) - settings.shots :]
    examples = examples[: len(examples) - settings.shots]
    renderer = Renderer(task, tokenizer, fewshot=shown)
    rendered = [renderer.render(example).token_ids for example in examples[: settings.examples]]
    return [tuple(rendered[at % len(rendered)]) for at in range(settings.examples)]


def measure(settings: argparse.Namespace) -> dict:
    """Answer all prompts once."""
    model = lmtasks.load_model(settings.model, RunOptions(dtype=settings.dtype))
    loaded = model._loaded
    asked = prompts(settings, loaded.tokenizer)
    if not settings.ends:
        object.__setattr__(loaded, "end_ids", ())
        loaded.module.generation_config.eos_token_id = None
    name, _, size = settings.side.partition(" ")
    # The trial and what is laid out once belong to loading.
    engine = model._engine(None) if name == "lmtasks" and model.engine == "slots" else None
    begun = time.perf_counter()
    if name == "lmtasks":
        requests = [
            Request(str(at), ids, Generation(max_new_tokens=settings.new_tokens)) for at, ids in enumerate(asked)
        ]
        written = {place: answer.tokens for done in model.generate(requests, seed=0) for place, answer in done}
    else:
        written = generate(loaded, asked, int(size), settings.new_tokens)
    seconds = time.perf_counter() - begun
    return {
        "examples_per_second": len(asked) / seconds,
        "prompt_tokens": sum(map(len, asked)),
        "new_tokens": sum(written.values()),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "engine": "slots" if engine else "generate",
    }


@torch.inference_mode()
def generate(loaded: object, asked: list[tuple[int, ...]], size: int, new_tokens: int) -> dict[int, int]:
    """Answer prompts with transformers alone, and return how many tokens each answer has."""
    order = sorted(range(len(asked)), key=lambda at: -len(asked[at]))
    written = {}
    for start in range(0, len(order), size):
        places = order[start : start + size]
        width = max(len(asked[at]) for at in places)
        ids = torch.tensor([[loaded.pad_id] * (width - len(asked[at])) + list(asked[at]) for at in places])
        mask = torch.tensor([[0] * (width - len(asked[at])) + [1] * len(asked[at]) for at in places])
        output = loaded.module.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False, pad_token_id=loaded.pad_id
        )
        for at, row in zip(places, output[:, width:].tolist(), strict=True):
            ended = next((number for number, token in enumerate(row) if token in loaded.end_ids), len(row) - 1)
            written[at] = ended + 1
    return written


def report(settings: argparse.Namespace, rounds: dict[str, list[dict]]) -> None:
    """Print medians and ratios, and write them."""
    medians = {
        side: {
            "examples_per_second": round(statistics.median(run["examples_per_second"] for run in runs), 3),
            "all": [round(run["examples_per_second"], 3) for run in runs],
            "peak_memory_gib": round(statistics.median(run["peak_memory_bytes"] for run in runs) / 2**30, 2),
            "new_tokens": runs[0]["new_tokens"],
        }
        for side, runs in rounds.items()
    }
    peers = {side: found for side, found in medians.items() if side != "lmtasks"}
    best = max(peers, key=lambda side: peers[side]["examples_per_second"])
    ratio = medians["lmtasks"]["examples_per_second"] / medians[best]["examples_per_second"]
    for side, found in medians.items():
        print(f"{side:<12} {found['examples_per_second']:6.2f} examples/s  {found['peak_memory_gib']:5.2f} GiB")
    print(f"lmtasks / {best}: {ratio:.2f}")
    if settings.json:
        result = {
            "settings": {name: value for name, value in vars(settings).items() if name not in ("json", "side")},
            "prompt_tokens": rounds["lmtasks"][0]["prompt_tokens"],
            "medians": medians,
            "best_peer": best,
            "ratio": round(ratio, 3),
            "versions": {name: version(name) for name in ("lmtasks", "torch", "transformers")},
            "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        }
        result["settings"]["data"] = Path(settings.data).name
        settings.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
