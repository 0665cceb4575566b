"""Rendering 10,000 prompts, guarded and without the guard of plugin code, 0-shot and 5-shot.

    python benchmarks/speed/rendering.py [--examples N] [--rounds N] [--json FILE]

A plain template and a prompt function are rendered with the tokenizer of the default model. Both sides run in turn in
one process, and their token ids are compared. Seconds are CPU time, so that other processes do not count.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import numpy  # noqa: F401 - a run has numpy and torch imported, and the guard saves their state too
import torch  # noqa: F401
from transformers import AutoTokenizer

from lmtasks.models import CATALOG, DEFAULT, pull
from lmtasks.progress import no_progress
from lmtasks.prompts import PromptLimit, Renderer
from lmtasks.prompts.chat_template import Tokenizer
from lmtasks.task import Example, Prompt, Task

TEMPLATE = "Summarize this dialogue in one sentence.\n\n$dialogue"
TEXT = "the a we at noon ferry meeting report moved to room seven please bring your notes thanks see you then"


def prompt_function(inputs: Mapping[str, str]) -> str:
    """Return what TEMPLATE gives."""
    return TEMPLATE.replace("$dialogue", inputs["dialogue"])


def make_examples(count: int, seed: int = 0) -> list[Example]:
    """Return dialogues of about 150 words."""
    rng = random.Random(seed)
    examples = []
    for index in range(count):
        turns = [f"#Person{1 + turn % 2}#: {' '.join(rng.choices(TEXT.split(), k=15))}." for turn in range(10)]
        examples.append(Example(id=str(index), inputs={"dialogue": "\n".join(turns)}, references=("They meet.",)))
    return examples


class NoGuard:
    """A guard that does nothing."""

    def call(self, *_: object) -> nullcontext[None]:
        return nullcontext()


@contextmanager
def no_guard() -> Iterator[None]:
    """Have prompt functions called directly."""
    with mock.patch("lmtasks.prompts.filling.guarded_batch", lambda: nullcontext(NoGuard())):
        yield


def measure(user: object, tokenizer: Tokenizer, examples: list[Example], shots: int) -> tuple[float, list[bytes]]:
    """Return the CPU seconds that rendering took, and the token ids of every prompt."""
    task = Task(
        name="rendering",
        version=1,
        summary="Render.",
        fields=["dialogue"],
        prompts={"plain": Prompt(user=user)},
        datasets={"demo": lambda _: ()},
        metrics=["rouge"],
    )
    fewshot, asked = examples[:shots], examples[shots:]
    renderer = Renderer(task, tokenizer, fewshot=fewshot)
    started = time.process_time()
    prompts = list(renderer.render_all(asked, [PromptLimit()] * len(asked), on_overlong="error"))
    seconds = time.process_time() - started
    return seconds, [prompt.token_ids.tobytes() for prompt in prompts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    folder = pull(CATALOG[DEFAULT], accept_license=True, on_progress=no_progress).path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    examples = make_examples(arguments.examples + 5)
    results = []
    for form, user in (("template", TEMPLATE), ("function", prompt_function)):
        for shots in (0, 5):
            chosen = examples[: arguments.examples + shots]
            seconds: dict[str, list[float]] = {"guarded": [], "without guard": []}
            for _ in range(arguments.rounds):
                with no_guard():
                    taken, expected = measure(user, tokenizer, chosen, shots)
                seconds["without guard"].append(taken)
                taken, rendered = measure(user, tokenizer, chosen, shots)
                seconds["guarded"].append(taken)
                if rendered != expected:
                    raise SystemExit("the prompts differ")
            medians = {name: statistics.median(values) for name, values in seconds.items()}
            results.append(
                {
                    "prompt": form,
                    "shots": shots,
                    "median_cpu_seconds": {name: round(value, 3) for name, value in medians.items()},
                    "ratio": round(medians["guarded"] / medians["without guard"], 3),
                    "tokens": sum(map(len, rendered)) // 4,
                }
            )
            print(json.dumps(results[-1]), flush=True)
    result = {
        "examples": arguments.examples,
        "rounds": arguments.rounds,
        "results": results,
        "versions": {name: version(name) for name in ("lmtasks", "transformers", "tokenizers", "numpy", "torch")},
        "machine": f"Python {platform.python_version()}, {platform.machine()}",
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
