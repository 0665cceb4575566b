"""What the runners of all peers share: reading a job, cutting answers, telling what was measured.

It is imported inside each peer's environment, so it needs the standard library alone.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """What is asked of a peer."""

    model_folder: Path
    """In transformers format, float32."""
    model: str | None
    """What lmtasks calls it."""
    gguf: Path | None
    work: Path
    """Keeps conversions between calls."""
    prompts: list[list[int]]
    new_tokens: int
    end_ids: list[int]
    """Tokens that end an answer; without any, each answer has `new_tokens`."""
    variant: str
    slots: int | None
    """Sequences at once; None leaves it to the runner."""

    @property
    def warm_up(self) -> list[int]:
        """A short prompt, for an answer of two tokens before the clock starts."""
        return self.prompts[0][:16]

    @property
    def longest(self) -> int:
        """Positions that the longest prompt takes with its answer."""
        return max(map(len, self.prompts)) + self.new_tokens


def read_job(variants: Sequence[str]) -> Job:
    """Read the file that the command line names, and refuse a variant that the peer does not have."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} JOB.json")
    given = json.loads(Path(sys.argv[1]).read_text())
    if given["variant"] not in variants:
        sys.exit(f"{sys.argv[0]} has no variant {given['variant']!r}; it has {', '.join(variants)}")
    gguf = given.get("gguf")
    return Job(
        model_folder=Path(given["model_folder"]),
        model=given.get("model"),
        gguf=Path(gguf) if gguf else None,
        work=Path(given["work"]),
        prompts=given["prompts"],
        new_tokens=given["new_tokens"],
        end_ids=given.get("end_ids") or [],
        variant=given["variant"],
        slots=given.get("slots"),
    )


def converted(job: Job, name: str, convert: Callable[[Path], None]) -> Path:
    """Return the folder of a conversion, made once for each model; one that was interrupted is not taken for whole."""
    folder = job.work / f"{job.model_folder.name}-{name}"
    if not folder.exists():
        half = folder.with_name(f"{folder.name}.half")
        shutil.rmtree(half, ignore_errors=True)
        half.parent.mkdir(parents=True, exist_ok=True)
        convert(half)
        half.rename(folder)
    return folder


def threads() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def tell(
    job: Job,
    *,
    peer: str,
    version: str,
    load_seconds: float,
    begun: float,
    token_ids: list[list[int]] | None = None,
    texts: list[str] | None = None,
    new_tokens: int | None = None,
) -> None:
    """Stop the clock that began at `begun`, and print the result as the last line.

    Answers come as their tokens, or as texts with the number of all tokens.
    """
    seconds = time.perf_counter() - begun
    answers = token_ids and [_cut(ids[: job.new_tokens], job.end_ids) for ids in token_ids]
    result = {
        "peer": peer,
        "variant": job.variant,
        "version": version,
        "seconds": round(seconds, 3),
        "load_seconds": round(load_seconds, 3),
        "new_tokens": sum(map(len, answers)) if answers else new_tokens,
        "token_ids": answers,
        "texts": texts,
        "peak_memory_bytes": _peak_memory(),
    }
    sys.stderr.flush()
    print(f"\n{json.dumps(result)}", flush=True)


def _cut(ids: Sequence[int], end_ids: Sequence[int]) -> list[int]:
    """Return the answer up to its end token, which counts: it was computed."""
    ended = next((index for index, token in enumerate(ids) if token in end_ids), len(ids) - 1)
    return list(ids[: ended + 1])


def _peak_memory() -> int:
    """Return the peak of this process in bytes.

    On Linux ru_maxrss begins with the peak of the parent process, here that of the benchmark; VmHWM is only of this
    process.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
