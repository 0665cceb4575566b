"""How the cost of generation grows: with examples, with the length of prompts, with slots; a plot of each.

    python benchmarks/speed/growth.py OUTPUT [--data FILE] [--task TASK] [--model MODEL] [--dtype DTYPE]
        [--examples N ...]

OUTPUT.json and OUTPUT.svg are written; the plot needs matplotlib. All answers have as many tokens. Prompts of a certain
length are the data's, joined and cut.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import lmtasks
from lmtasks import RunOptions
from lmtasks.backends import LanguageModel, Request
from lmtasks.data import DataRequest, load_dataset
from lmtasks.plugins import Registry
from lmtasks.prompts import Renderer
from lmtasks.task import SamplingParams

LENGTHS = 128, 256, 512, 1024, 2048, 4096
OF_A_LENGTH, BEHIND_A_LENGTH = 16, 16
"""Prompts of each length, and new tokens of each."""
SLOTS = 1, 2, 4, 8, 16, 32, 64, 128
NEW_TOKENS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--task", default="summarization/dialogue")
    parser.add_argument("--data", default="demo")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--examples", type=int, nargs="+", default=[64, 256, 1024])
    settings = parser.parse_args()
    model = lmtasks.load_model(settings.model, RunOptions(dtype=settings.dtype))
    task, _ = Registry().task(settings.task)
    examples = load_dataset(task, DataRequest(data=settings.data)).examples
    renderer = Renderer(task, model.tokenizer)
    prompts = [tuple(renderer.render(example).token_ids) for example in examples]
    object.__setattr__(model._loaded, "end_ids", ())
    seconds(model, prompts[:64], 2)  # as warm for the first as for the last

    measured: dict[str, dict[int, float]] = {"examples": {}, "prompt tokens": {}, "slots": {}}
    for count in settings.examples:
        asked = [prompts[index % len(prompts)] for index in range(count)]
        measured["examples"][count] = seconds(model, asked, NEW_TOKENS) / count
        print(f"{count} examples: {1000 * measured['examples'][count]:.0f} ms each", flush=True)
    text = [token for prompt in prompts for token in prompt]
    for length in LENGTHS:
        # Beginnings of their own: nothing is shared.
        asked = [tuple(text[index * 997 + index : index * 997 + index + length]) for index in range(OF_A_LENGTH)]
        measured["prompt tokens"][length] = seconds(model, asked, BEHIND_A_LENGTH) / OF_A_LENGTH
        print(f"{length} prompt tokens: {1000 * measured['prompt tokens'][length]:.0f} ms each", flush=True)
    for slots in SLOTS:
        asked = prompts[: max(32, slots)]
        measured["slots"][slots] = seconds(model, asked, NEW_TOKENS, slots) / len(asked)
        print(f"{slots} slots: {1000 * measured['slots'][slots]:.0f} ms each", flush=True)
    result = {
        "seconds_per_example": measured,
        "settings": {
            "task": settings.task, "data": Path(settings.data).name, "model": settings.model, "dtype": settings.dtype,
        },
        "versions": {name: version(name) for name in ("lmtasks", "torch", "transformers")},
        "machine": f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} CPUs",
    }  # fmt: skip
    settings.output.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    draw(measured, settings.output.with_suffix(".svg"))


def seconds(
    model: LanguageModel, prompts: Sequence[tuple[int, ...]], new_tokens: int, slots: int | None = None
) -> float:
    """Return how long it takes to answer prompts."""
    generation = SamplingParams(max_new_tokens=new_tokens)
    requests = [Request(str(index), ids, generation) for index, ids in enumerate(prompts)]
    begun = time.perf_counter()
    for _ in model.generate(requests, seed=0, batch_size=slots):
        pass
    return time.perf_counter() - begun


def draw(measured: dict[str, dict[int, float]], file: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(measured), figsize=(11, 3.2), layout="constrained")
    for axis, (name, points) in zip(axes, measured.items(), strict=True):
        axis.plot(list(points), list(points.values()), marker="o")
        axis.set_xscale("log", base=2)
        axis.set_xticks(list(points), [f"{point:,}" for point in points], fontsize=8)
        axis.set_ylim(bottom=0)
        axis.set_xlabel(name)
        axis.set_ylabel("seconds per example")
        axis.grid(alpha=0.3)
    figure.savefig(file)


if __name__ == "__main__":
    main()
