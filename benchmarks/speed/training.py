"""Fine-tuning: tokens per second and losses of lmtasks beside transformers' Trainer with peft, in turn.

    python benchmarks/speed/training.py [--data FILE] [--task TASK] [--examples N] [--model MODEL] [--rounds N]
        [--json FILE]

Both learn the same token ids in the same order with the same adapter, batches of 8, one pass. The peer is what peft's
documentation shows: padded batches, a base in float32 under bfloat16 autocast, logits for every token. Each side runs
in a process of its own. The clock covers Trainer's `train` alone: on neither side the making of adapter and trainer, on
ours the checkpoints too, which the peer does not write.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch

from lmtasks.api import PlannedTraining, plan_train
from lmtasks.models import store
from lmtasks.models.catalog import CATALOG
from lmtasks.options import TrainOptions
from lmtasks.progress import no_progress

SIDES = ("lmtasks", "trainer")
RANK, ALPHA, RATE, BATCH = 16, 32, 5e-4, 8


def main() -> None:
    settings = parse()
    if settings.side:
        print(json.dumps({"lmtasks": by_lmtasks, "trainer": by_trainer}[settings.side](settings)))
        return
    rounds: dict[str, list[dict]] = {side: [] for side in SIDES}
    for number in range(settings.rounds):
        for side in SIDES:
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rounds[side].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number + 1}, {side}: {rounds[side][-1]['tokens_per_second']:.0f} tokens/s", flush=True)
    report(settings, rounds)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="summarization/dialogue")
    parser.add_argument("--data", default="demo")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--model", default="smollm2-135m-instruct", choices=sorted(CATALOG))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    return parser.parse_args()


def planned(settings: argparse.Namespace) -> PlannedTraining:
    options = TrainOptions(
        data=settings.data, limit=settings.examples, eval_data="demo", validation=0, rank=RANK, alpha=ALPHA,
        learning_rate=RATE, batch_size=BATCH, epochs=1,
    )  # fmt: skip
    return plan_train(settings.task, options, model=settings.model)


def by_lmtasks(settings: argparse.Namespace) -> dict:

    from lmtasks.training.lora.train import train_weights

    ready = planned(settings)
    with tempfile.TemporaryDirectory() as folder:
        done = train_weights(ready.plan, ready.setup, ready.loaded, Path(folder), no_progress)
    losses = [entry.loss for entry in done.record.history if entry.loss is not None]
    return figures(ready.setup.train.tokens, done.record.seconds, losses)


def by_trainer(settings: argparse.Namespace) -> dict:
    # A process of its own plans, so that the memory of planning does not count here.
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); import training; training.write_items()"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "items.json"
        command = [sys.executable, "-c", code, str(Path(__file__).parent), *sys.argv[1:], "--json", str(file)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        items, steps, path = json.loads(file.read_text())
        return train_padded(items, steps, path, folder)


def write_items() -> None:
    """Write what lmtasks would learn: tokens, where the answer begins, and the examples of each step."""
    settings = parse()
    ready = planned(settings)
    items = [(list(item.token_ids), len(item.token_ids) - item.target_tokens) for item in ready.setup.train.examples]
    folder = store.pull(CATALOG[settings.model], accept_license=True, on_progress=no_progress).path
    settings.json.write_text(json.dumps([items, [list(step) for step in ready.setup.steps], str(folder)]))


def train_padded(items: list, steps: list[list[int]], path: str, folder: str) -> dict:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    torch.manual_seed(0)
    model = get_peft_model(
        model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    )

    def collate(rows: list) -> dict[str, torch.Tensor]:
        width = max(len(ids) for ids, _ in rows)
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for row, (tokens, start) in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
            labels[row, start : len(tokens)] = torch.tensor(tokens[start:])
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    arguments = TrainingArguments(
        output_dir=folder, per_device_train_batch_size=BATCH, num_train_epochs=1, learning_rate=RATE,
        lr_scheduler_type="cosine", warmup_steps=0.05, bf16=True, use_cpu=True, logging_steps=1, save_strategy="no",
        report_to=[], disable_tqdm=True,
    )  # fmt: skip
    data = [items[index] for step in steps for index in step]

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: object) -> torch.utils.data.Sampler:
            return torch.utils.data.SequentialSampler(data)

    trainer = InOrder(model=model, args=arguments, train_dataset=data, data_collator=collate)
    begun = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begun
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return figures(sum(len(ids) for ids, _ in data), seconds, losses)


def figures(tokens: int, seconds: float, losses: list[float]) -> dict:
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    return {
        "tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds, "peak_memory_bytes": peak,
        "losses": losses,
    }  # fmt: skip


def report(settings: argparse.Namespace, rounds: dict[str, list[dict]]) -> None:
    """Print medians and ratios, and write them."""
    table = {
        side: {
            "tokens_per_second": round(statistics.median(run["tokens_per_second"] for run in runs), 1),
            "all": [round(run["tokens_per_second"], 1) for run in runs],
            "peak_memory_mib": round(statistics.median(run["peak_memory_bytes"] for run in runs) / 2**20),
            "losses": runs[0]["losses"],
        }
        for side, runs in rounds.items()
    }
    pairs = zip(table["lmtasks"]["all"], table["trainer"]["all"], strict=True)
    ratio = round(statistics.median(one / other for one, other in pairs), 2)
    for side, row in table.items():
        losses = " ".join(f"{loss:.2f}" for loss in row["losses"])
        print(f"{side:<8} {row['tokens_per_second']:7.0f} tokens/s {row['peak_memory_mib']:6} MiB   loss {losses}")
    print(f"lmtasks / trainer: {ratio:.2f}; {rounds['lmtasks'][0]['tokens']:,} tokens")
    if settings.json:
        result = {
            "settings": {
                "task": settings.task, "data": Path(settings.data).name, "examples": settings.examples,
                "model": settings.model,
            },
            "sides": table,
            "ratio": ratio,
            "versions": {name: version(name) for name in ("lmtasks", "torch", "transformers", "peft")},
            "machine": f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} CPUs",
        }  # fmt: skip
        settings.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
