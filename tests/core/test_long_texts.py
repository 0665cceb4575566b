"""Long and hostile texts are scored in a time and a memory that grow with little more than their length."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtasks import Sample
from lmtasks.metrics import BUILTIN_METRICS, score_outputs, score_samples
from lmtasks.metrics.lcs import lcs_positions, longest_common_run
from lmtasks.metrics.tokenize import sentences, tokens

CHARACTERS = "的一是不了人我在有他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生"


def chinese(length: int, seed: int) -> str:
    drawn = random.Random(seed)
    return "".join(drawn.choice(CHARACTERS) for _ in range(length))


def score(metric: str, prediction: str, reference: str) -> dict[str, float]:
    one = Sample(index=0, id="0", inputs={}, references=(reference,), prediction=prediction, language="zh")
    return {each.name: each.value for each in score_samples([one], [BUILTIN_METRICS[metric]], resamples=0)}


@contextmanager
def seconds(most: float) -> Iterator[None]:
    """Bound the processor time, which other processes do not stretch."""
    started = time.process_time()
    yield
    assert time.process_time() - started < most


def longest_run_by_table(first: str, second: str) -> int:
    longest = 0
    ending = [0] * (len(second) + 1)
    for token in first:
        ending = [0] + [ending[index] + 1 if token == other else 0 for index, other in enumerate(second)]
        longest = max(longest, *ending)
    return longest


@settings(max_examples=300, deadline=None)
@given(
    st.text("ab", max_size=12) | st.text("abc", max_size=20), st.text("abc", max_size=20) | st.text("ad", max_size=9)
)
def test_longest_common_run_equals_a_plain_table(first: str, second: str):
    assert longest_common_run(first, second) == longest_run_by_table(first, second)


def test_f1_of_20000_chinese_characters_takes_seconds():
    # A table took 45 s.
    common = chinese(3_000, 1)
    first, second = chinese(17_000, 2) + common, common + chinese(17_000, 3)
    with seconds(8):
        value = score("f1", first, second)["f1"]
    # Characters before and behind the common run may be equal by chance.
    assert value == pytest.approx(100 * 2 * 3_000 / 40_000, abs=0.05)


@pytest.mark.parametrize("text", ["哈" * 20_000, chinese(20_000, 4)], ids=["one character", "many"])
@pytest.mark.parametrize("metric", ["f1", "exact_match", "rouge", "chrf", "bleu"])
def test_metrics_of_a_long_text_against_itself_are_100(metric: str, text: str):
    with seconds(15):
        scores = score(metric, text, text)
    assert scores == pytest.approx(dict.fromkeys(scores, 100))


def test_rouge_lsum_reads_each_sentence_of_a_repetitive_output_once():
    loop = "好了。" * 10_000
    with seconds(15):
        assert score("rouge", loop, loop)["rougeLsum"] == pytest.approx(100)


def test_lcs_positions_need_no_whole_table():
    first, second = chinese(4_000, 5), chinese(4_000, 6)
    tracemalloc.start()
    try:
        lcs_positions(first, second)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 4_000 * 4_000 / 8 / 2  # bytes: half of a table of bits


@pytest.mark.parametrize(
    "part",
    [
        "!",
        "。",
        "?!",
        ".",
        "…",
        "! ",
        '!"',
        ".» ",
        "!»",
        " ",
        "\n",
        "a",
        "([",
        "\u200d",
        "a\u200d",
        "\u0301",
        "\u00ad",
        "。”",
    ],
)
def test_sentences_and_tokens_of_repeated_parts_take_seconds(part: str):
    text = part * (200_000 // len(part))
    with seconds(8):
        for end in ("", "a", "你", ". A"):
            assert "".join("".join(sentences(text + end)).split()) == "".join((text + end).split())
            tokens(text + end)


def test_output_checks_of_long_outputs_take_seconds():
    looping = Sample(index=0, id="0", inputs={"text": "哈" * 100_000}, references=(), prediction="哈" * 99_999)
    with seconds(15):
        checks = {each.name: each.value for each in score_outputs([looping], resamples=0)}
    assert (checks["repeating"], checks["copying"]) == (100, 100)
