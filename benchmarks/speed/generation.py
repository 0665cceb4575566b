"""Generation: lmtasks beside transformers' `generate` and other engines, on the same prompts, in turn.

    python benchmarks/speed/generation.py [--data FILE] [--task TASK] [--examples N] [--shots N] [--new-tokens N]
        [--ends] [--model MODEL] [--peers DIR] [--sides NAME,...] [--rounds N] [--no-reference] [--json FILE]

Each side runs in a process of its own (`peers/run_*.py`), as it comes: its model is loaded, a short answer warms it up,
and the clock starts with the first prompt. All get the same token ids, and write as many tokens each unless --ends lets
an end token end an answer. `generate` is timed with batches of several sizes, of which the fastest counts.

The share of texts that equals `generate` in float32 is measured too, unless --no-reference skips these minutes.

DIR holds the environments of `peers/make_environments.py`; without it, lmtasks and transformers alone are timed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from lmtasks.data import DataRequest, load_dataset
from lmtasks.models import store
from lmtasks.models.catalog import CATALOG
from lmtasks.plugins import Registry
from lmtasks.progress import no_progress
from lmtasks.prompts import Renderer

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Side:
    """An engine in a certain setting."""

    engine: str
    """Name of the runner: `peers/run_NAME.py`."""
    variant: str
    slots: int | None = None

    @property
    def name(self) -> str:
        return " ".join(str(part) for part in (self.engine, self.variant, self.slots) if part)


SIDES = (
    Side("lmtasks", "bfloat16"),
    Side("lmtasks", "int8"),
    Side("transformers", "bfloat16", 8),
    Side("transformers", "bfloat16", 16),
    Side("transformers", "bfloat16", 32),
    Side("vllm", "bfloat16"),
    Side("llama_cpp", "q4_1"),
    Side("openvino", "bfloat16"),
    Side("openvino", "int8"),
    Side("ctranslate2", "int8"),
)
OWN = ("lmtasks", "transformers")
"""Engines that run in the environment of this script."""
REFERENCE = Side("transformers", "float32", 16)
"""By whose texts the others' are judged."""


def main() -> None:
    settings = parse()
    sides = [side for side in SIDES if wanted(side, settings)]
    with tempfile.TemporaryDirectory() as scratch:
        job, decode = make_job(settings, Path(scratch))
        expected = None if settings.no_reference else reference(settings, job, decode, Path(scratch))
        rounds: dict[str, list[dict]] = {side.name: [] for side in sides}
        for number in range(settings.rounds):
            for side in sides:
                done = run(side, job, settings, Path(scratch))
                rounds[side.name].append(judged(done, expected, decode))
                speed = rounds[side.name][-1]["examples_per_second"]
                print(f"round {number + 1}, {side.name}: {speed:.2f} examples/s", flush=True)
    report(settings, job, rounds)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="summarization/dialogue")
    parser.add_argument("--data", default="demo")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--shots", type=int, default=0)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--ends", action="store_true")
    parser.add_argument("--model", default="smollm2-135m-instruct", choices=sorted(CATALOG))
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--sides", default="", help='such as "lmtasks bfloat16,vllm"; by default all')
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-reference", action="store_true")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def wanted(side: Side, settings: argparse.Namespace) -> bool:
    """Return whether a side was requested and its environment exists."""
    asked = [name.strip() for name in settings.sides.split(",") if name.strip()]
    if asked and not any(f"{side.name} ".startswith(f"{name} ") for name in asked):
        return False
    if side.engine == "llama_cpp" and not gguf(settings):
        return False
    return side.engine in OWN or bool(settings.peers and python(side, settings).is_file())


def python(side: Side, settings: argparse.Namespace) -> Path:
    return Path(sys.executable) if side.engine in OWN else settings.peers / side.engine / "bin" / "python"


def gguf(settings: argparse.Namespace) -> Path | None:
    """Return the model's GGUF file, for the engine that reads it; it is put beside the environments by hand."""
    figures = settings.peers and sorted((settings.peers / "gguf").glob("*.gguf"))
    named = [file for file in figures or [] if file.name.lower().startswith(settings.model.split("-instruct")[0])]
    return named[0] if named else None


def make_job(settings: argparse.Namespace, scratch: Path) -> tuple[dict, object]:
    """Return what all sides are asked, and what turns their tokens into text."""
    from transformers import AutoTokenizer

    folder = store.pull(CATALOG[settings.model], accept_license=True, on_progress=no_progress).path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    task, _ = Registry().task(settings.task)
    examples = load_dataset(task, DataRequest(data=settings.data)).examples
    shown = examples[len(examples) - settings.shots :]
    examples = examples[: len(examples) - settings.shots]
    renderer = Renderer(task, tokenizer, fewshot=shown)
    rendered = [list(renderer.render(example).token_ids) for example in examples[: settings.examples]]
    work = settings.peers / "work" if settings.peers else scratch
    work.mkdir(parents=True, exist_ok=True)
    job = {
        "model": settings.model,
        "model_folder": str(folder),
        "gguf": str(gguf(settings) or ""),
        "work": str(work),
        # Over again from the first where there are too few examples.
        "prompts": [rendered[index % len(rendered)] for index in range(settings.examples)],
        "new_tokens": settings.new_tokens,
        "end_ids": [tokenizer.eos_token_id] if settings.ends else [],
    }
    return job, lambda ids: tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def run(side: Side, job: dict, settings: argparse.Namespace, scratch: Path) -> dict:
    """Answer all prompts once, in a process of its own."""
    file = scratch / "job.json"
    file.write_text(json.dumps({**job, "variant": side.variant, "slots": side.slots}))
    command = [str(python(side, settings)), str(HERE / "peers" / f"run_{side.engine}.py"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side.name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def reference(settings: argparse.Namespace, job: dict, decode, scratch: Path) -> list[str]:
    """Return what `generate` says in float32, kept beside the peers' conversions."""
    asked = json.dumps([job["model"], job["prompts"], job["new_tokens"], job["end_ids"]])
    kept = Path(job["work"]) / f"reference-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json"
    if not kept.is_file():
        done = run(REFERENCE, job, settings, scratch)
        kept.write_text(json.dumps([decode(ids) for ids in done["token_ids"]]))
    return json.loads(kept.read_text())


def judged(done: dict, expected: list[str] | None, decode) -> dict:
    """Return the figures of a round, and how far its texts are those of the reference, if there is one."""
    texts = done["texts"] or [decode(ids) for ids in done["token_ids"]]
    figures = {
        "examples_per_second": len(texts) / done["seconds"],
        "load_seconds": done["load_seconds"],
        "new_tokens": done["new_tokens"],
        "peak_memory_bytes": done["peak_memory_bytes"],
        "version": done["version"],
    }
    if expected:
        pairs = list(zip(texts, expected, strict=True))
        figures["same_texts"] = sum(text == right for text, right in pairs)
        beginnings = [len(os.path.commonprefix(pair)) / max(1, len(pair[1])) for pair in pairs]
        figures["same_beginning"] = round(sum(beginnings) / len(beginnings), 3)
    return figures


def report(settings: argparse.Namespace, job: dict, rounds: dict[str, list[dict]]) -> None:
    """Print medians and ratios, and write them."""

    def median(runs: list[dict], name: str) -> float:
        return statistics.median(run[name] for run in runs)

    table = {
        side: {
            "examples_per_second": round(median(runs, "examples_per_second"), 3),
            "all": [round(run["examples_per_second"], 3) for run in runs],
            "new_tokens": runs[0]["new_tokens"],
            "load_seconds": round(median(runs, "load_seconds"), 1),
            "peak_memory_mib": round(median(runs, "peak_memory_bytes") / 2**20),
            **{name: runs[0].get(name) for name in ("same_texts", "same_beginning", "version")},
        }
        for side, runs in rounds.items()
    }
    ours = [side for side in table if side.startswith("lmtasks")]
    print(f"\n{'':<24}{'examples/s':>11}{'peak MiB':>10}{'load s':>8}{'alike':>7}", end="")
    print("".join(f"{side.partition(' ')[2] + ' /':>13}" for side in ours))
    for side, figures in table.items():
        print(f"{side:<24}{figures['examples_per_second']:>11.2f}{figures['peak_memory_mib']:>10}", end="")
        alike = "" if figures["same_beginning"] is None else f"{100 * figures['same_beginning']:.0f}%"
        print(f"{figures['load_seconds']:>8.1f}{alike:>7}", end="")
        # By rounds, in which both sides had the machine in the same state
        figures["ratios"] = {
            mine: round(statistics.median(a / b for a, b in zip(table[mine]["all"], figures["all"], strict=True)), 3)
            for mine in ours
        }
        print("".join(f"{ratio:>13.2f}" for ratio in figures["ratios"].values()))
    tokens = sum(map(len, job["prompts"]))
    print(f"{settings.examples} prompts of {tokens:,} tokens, up to {settings.new_tokens} new tokens each")
    if settings.json:
        asked = {
            name: value
            for name, value in vars(settings).items()
            if name not in ("json", "peers", "sides", "no_reference")
        }
        result = {
            "settings": {**asked, "data": Path(settings.data).name},
            "prompt_tokens": tokens,
            "sides": table,
            "versions": {name: version(name) for name in ("lmtasks", "torch", "transformers")},
            "machine": f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} CPUs",
        }
        settings.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
