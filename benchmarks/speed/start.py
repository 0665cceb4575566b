"""The start: seconds from launching `lmtasks ask` to the first piece of its answer, and where they go.

    python benchmarks/speed/start.py [--rounds N] [--json FILE]

The model is in the store and the files are in the system's cache. Beside it stands what no program that uses this
model can do without: importing torch and transformers' class for it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

ASK = [sys.executable, "-m", "lmtasks", "ask", "summarization", "The ferry leaves at nine and comes back at six."]
IMPORTS = [sys.executable, "-c", "import torch; from transformers import AutoTokenizer, LlamaForCausalLM; print()"]
SHOWN = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    settings = parser.parse_args()
    first_output(ASK)  # whatever is made once, and the system's cache
    first_output(IMPORTS)
    rounds = [(first_output(ASK), first_output(IMPORTS)) for _ in range(settings.rounds)]
    asks, imports = ([pair[side] for pair in rounds] for side in (0, 1))
    profile = import_profile()
    for name, seconds in (("ask, to its first text", asks), ("importing torch and the model's class", imports)):
        print(f"{name:<38} {statistics.median(seconds):6.2f} s   {min(seconds):.2f} to {max(seconds):.2f}")
    print("seconds of importing, by package, within `ask`:")
    for name, seconds in profile.items():
        print(f"  {name:<20} {seconds:5.2f}")
    if settings.json:
        result = {
            "ask_seconds": {"median": statistics.median(asks), "all": asks},
            "import_seconds": {"median": statistics.median(imports), "all": imports},
            "imports_of_ask": profile,
            "versions": {name: version(name) for name in ("lmtasks", "torch", "transformers")},
            "machine": f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} CPUs",
        }
        settings.json.write_text(json.dumps(result, indent=2) + "\n")


def first_output(command: list[str]) -> float:
    """Return the seconds until a command has written something."""
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        written = process.stdout.read(1)
        seconds = time.perf_counter() - begun
        process.stdout.read()
    if not written or process.returncode:
        sys.exit(f"{' '.join(command)} failed")
    return round(seconds, 3)


def import_profile() -> dict[str, float]:
    """Return the seconds that importing took, by package, the most first: each module's own time."""
    command = [ASK[0], "-X", "importtime", *ASK[1:]]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spent: dict[str, float] = {}
    for self_time, name in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", told):
        package = name.partition(".")[0]
        spent[package] = spent.get(package, 0) + int(self_time) / 1e6
    return {name: round(seconds, 3) for name, seconds in sorted(spent.items(), key=lambda item: -item[1])[:SHOWN]}


if __name__ == "__main__":
    main()
