"""ROUGE-1, -2, -L and -Lsum of 10,000 pairs: lmtasks with intervals against rouge-score called plainly.

    python benchmarks/speed/rouge.py [--pairs N] [--rounds N] [--json FILE]

The texts are drawn from a vocabulary with Zipf's frequencies, about 50 words in three sentences each; a prediction
keeps a part of its reference's words. Both sides stem, run in turn in one process, and their mean scores are compared.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from importlib.metadata import version
from pathlib import Path

from rouge_score.rouge_scorer import RougeScorer

from lmtasks.metrics import BUILTIN_METRICS, measure_samples
from lmtasks.metrics.statistics import bootstrap_intervals
from lmtasks.task import Sample

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "ru", "sa", "te", "vi", "wo", "zu")
ENDINGS = ("", "s", "ed", "ing", "ation", "ly", "er")


def make_pairs(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return references and predictions, sentences on lines of their own."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 3))) + rng.choice(ENDINGS) for _ in range(5000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    pairs = []
    for _ in range(count):
        reference = rng.choices(words, weights, k=rng.randint(40, 60))
        prediction = [word if rng.random() < 0.5 else rng.choices(words, weights)[0] for word in reference]
        pairs.append((_as_text(reference), _as_text(prediction)))
    return pairs


def _as_text(words: list[str]) -> str:
    third = len(words) // 3
    sentences = (words[:third], words[third : 2 * third], words[2 * third :])
    return "\n".join(" ".join(sentence).capitalize() + "." for sentence in sentences)


def plainly(pairs: list[tuple[str, str]]) -> dict[str, float]:
    scorer = RougeScorer(KINDS, use_stemmer=True)
    scores = [scorer.score(reference, prediction) for reference, prediction in pairs]
    return {kind: 100 * statistics.fmean(score[kind].fmeasure for score in scores) for kind in KINDS}


def ours(pairs: list[tuple[str, str]]) -> tuple[dict[str, float], float]:
    """Return the scores, and the seconds that the intervals took."""
    samples = [
        Sample(index=index, id=str(index), inputs={}, references=(reference,), prediction=prediction, language="en")
        for index, (reference, prediction) in enumerate(pairs)
    ]
    [measured] = measure_samples(samples, [BUILTIN_METRICS["rouge"]])
    scores = {score.name: score.value for score in measured.scores(resamples=0)}
    begun = time.perf_counter()
    bootstrap_intervals(measured.measurement, resamples=1000)
    return scores, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    pairs = make_pairs(arguments.pairs)
    seconds: dict[str, list[float]] = {"rouge-score": [], "lmtasks": [], "intervals": []}
    for _ in range(arguments.rounds):
        begun = time.perf_counter()
        theirs = plainly(pairs)
        seconds["rouge-score"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        scores, intervals = ours(pairs)
        seconds["lmtasks"].append(time.perf_counter() - begun)
        seconds["intervals"].append(intervals)
        if any(abs(scores[kind] - theirs[kind]) > 1e-9 for kind in KINDS):
            raise SystemExit(f"the scores differ: {scores} {theirs}")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        "pairs": arguments.pairs,
        "rounds": arguments.rounds,
        "median_seconds": {name: round(value, 3) for name, value in medians.items()},
        "ratio": round(medians["rouge-score"] / medians["lmtasks"], 2),
        "versions": {name: version(name) for name in ("lmtasks", "rouge-score", "numpy")},
        "machine": f"Python {platform.python_version()}, {platform.machine()}",
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
