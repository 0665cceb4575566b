"""Intervals and paired tests, against what is known of them: by hand, by enumeration, by formula, by simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtasks import Measurement, Metric, Sample, ScoreSpec
from lmtasks.metrics import BUILTIN_METRICS, find_metrics, measure_samples, score_samples
from lmtasks.metrics.statistics import (
    PairedTest,
    bootstrap_intervals,
    can_be_resampled,
    corpus_values,
    holm,
    paired_test,
)

Corpus = Callable[..., list[Sample]]

ALWAYS = ("bleu", "chrf", "chrf++", "ter", "rouge", "exact_match", "f1", "loglikelihood", "perplexity")
WORDS = ("ferry", "harbour", "leaves", "nine", "bread", "costs", "evening", "returns", "boats", "Nobody", "1943")


def mean_of(*columns: Sequence[float]) -> Measurement:
    """Means over examples on 0-1, one for each column of values; NaN for examples that one is not computed on."""
    values = np.array(columns, dtype=float).T
    inside = ~np.isnan(values)
    width = values.shape[1]

    def combine(sums: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return sums[..., :width] / sums[..., width:]

    return Measurement(
        statistics=np.hstack([np.where(inside, values, 0), inside]),
        specs=tuple(ScoreSpec(name=f"mean{place}", signature=f"mean{place}") for place in range(width)),
        combine=combine,
    )


def measured(name: str, samples: Sequence[Sample]) -> Measurement:
    (found,) = measure_samples(samples, [BUILTIN_METRICS[name]])
    return found.measurement


def sample(prediction: str, *references: str, index: int = 0) -> Sample:
    return Sample(index=index, id=str(index), inputs={}, references=references, language="en", prediction=prediction)


def english(n: int, *, wrong: float, seed: int) -> list[Sample]:
    """Samples of a system that gets a share of the words wrong; references are the same for any share."""
    words, errors = np.random.default_rng(0), np.random.default_rng(seed)
    samples = []
    for index in range(n):
        reference = words.choice(WORDS, size=8).tolist()
        prediction = [str(errors.choice(WORDS)) if errors.random() < wrong else word for word in reference]
        samples.append(sample(" ".join(prediction), " ".join(reference), index=index))
    return samples


# Corpus values


def test_corpus_values_are_summed_exactly():
    values = [0.1] * 10 + [1e16, 1.0, -1e16]
    rows = Measurement(
        statistics=np.array(values)[:, None], specs=(ScoreSpec(name="sum", signature="sum"),), combine=lambda sums: sums
    )
    # 0.1 is a little more than a tenth, but ten of them, rounded once, are 1; the 1 is not lost beside 1e16.
    assert corpus_values(rows).tolist() == [2]


# Holm's correction


@pytest.mark.parametrize(
    ("raw", "expected"),
    # By hand: the smallest of m times m, the next times m - 1, ..., never less than the one before, never above 1.
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.02, 0.01, 0.01], [0.03, 0.03, 0.03]),
        ([0.01, 0.011, 0.8], [0.03, 0.03, 0.8]),
        ([0.5, 0.6, 0.9], [1, 1, 1]),
        ([0.0, 1.0], [0, 1]),
    ],
)
def test_holm_equals_its_definition(raw: list[float], expected: list[float]):
    assert holm(raw) == pytest.approx(expected)


def test_holm_ignores_nan():
    assert holm([math.nan, 0.01, math.nan, 0.03]) == pytest.approx([math.nan, 0.02, math.nan, 0.03], nan_ok=True)
    assert all(map(math.isnan, holm([math.nan])))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=12), st.randoms(use_true_random=False))
def test_holm_never_lowers_keeps_the_order_and_ends_at_1(raw: list[float], shuffler):
    corrected = holm(raw)
    assert len(corrected) == len(raw)
    assert all(p <= after <= min(1, p * len(raw)) for p, after in zip(raw, corrected, strict=True))
    in_order = [after for _, after in sorted(zip(raw, corrected, strict=True))]
    assert in_order == sorted(in_order)
    order = shuffler.sample(range(len(raw)), len(raw))
    assert holm([raw[at] for at in order]) == [corrected[at] for at in order]


# Intervals


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=30, max_size=120), st.integers(0, 2**32 - 1))
def test_interval_contains_the_mean(values: list[float], seed: int):
    low, high = bootstrap_intervals(mean_of(values), resamples=300, seed=seed)[0]
    # Of equal values every resample is the same, but for the last digits.
    assert low - 1e-12 <= np.mean(values) <= high + 1e-12
    assert min(values) - 1e-12 <= low
    assert high <= max(values) + 1e-12


def test_interval_depends_on_the_seed_only():
    measurement = mean_of(np.random.default_rng(0).random(50), np.random.default_rng(1).random(50))
    first, again, other = (bootstrap_intervals(measurement, resamples=200, seed=seed) for seed in (3, 3, 4))
    assert first.shape == (2, 2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("draw", ["random", "standard_exponential", "standard_normal"])
def test_interval_of_a_mean_is_close_to_the_normal_one(draw: str):
    values = getattr(np.random.default_rng(0), draw)(400)
    low, high = bootstrap_intervals(mean_of(values), resamples=4000)[0]
    half = 1.959964 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=half / 8)
    assert high == pytest.approx(values.mean() + half, abs=half / 8)


def test_interval_contains_the_truth_in_about_95_of_100():
    rng = np.random.default_rng(0)
    truths = np.array([0.5, 1.0, 0.7])
    inside = []
    for seed in range(200):
        corpora = rng.random(80), rng.standard_exponential(80), rng.random(80) < 0.7
        low, high = bootstrap_intervals(mean_of(*corpora), resamples=300, seed=seed).T
        inside.append((low <= truths) & (truths <= high))
    # 200 corpora have a standard deviation of 1.5 points; percentile intervals of 80 examples are a little too short.
    coverage = np.mean(inside, axis=0)
    assert ((coverage > 0.89) & (coverage < 0.985)).all()


def test_interval_resamples_a_corpus_score_as_a_whole():
    # Not a mean over examples: of a ratio of sums, every resample sums anew. 4 resamples of 2 examples: 0/9, 4/13 twice
    # and 4/4, so their middle 95% reach from 0 to 1.
    ratio = Measurement(
        statistics=np.array([[0.0, 9.0], [4.0, 4.0]]),
        specs=(ScoreSpec(name="ratio", signature="ratio"),),
        combine=lambda sums: sums[..., :1] / sums[..., 1:],
    )
    assert bootstrap_intervals(ratio, resamples=200).tolist() == [[0, 1]]
    assert corpus_values(ratio).tolist() == [4 / 13]


def test_interval_omits_undefined_resamples():
    nan = math.nan
    intervals = bootstrap_intervals(mean_of([0.25, nan, nan], [nan, 1, 0], [nan, nan, nan]), resamples=200)
    assert intervals[:2].tolist() == [[0.25, 0.25], [0, 1]]
    assert np.isnan(intervals[2]).all()


def test_interval_exists_for_each_part():
    samples = [sample("nine", "nine"), sample("", "", index=1)]
    found = score_samples(samples, find_metrics(["exact_match"], None), resamples=100)
    assert [(score.name, score.n, score.low, score.high) for score in found] == [
        ("exact_match", 2, 100, 100),
        ("HasAns_exact", 1, None, None),
        ("NoAns_exact", 1, None, None),
    ]


class Whole(Metric):
    """A metric that knows its score for the corpus alone."""

    name = "whole"

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        def combine(sums: np.ndarray) -> np.ndarray:
            return np.full((*sums.shape[:-1], 1), 7.0)

        kinds = (ScoreSpec(name="whole", signature="whole|version:1"),)
        return Measurement(statistics=np.zeros((len(samples), 0)), specs=kinds, combine=combine)


def test_interval_needs_statistics():
    assert isinstance(Whole(), Metric)
    samples = english(3, wrong=0.5, seed=1)
    assert not can_be_resampled(Whole().measure(samples, "en"))
    (score,) = score_samples(samples, [Whole()])
    assert (score.value, score.low, score.high) == (7, None, None)


def test_interval_needs_two_examples():
    assert not can_be_resampled(mean_of([0.5]))
    assert can_be_resampled(mean_of([0.5, 0.5]))


# Paired tests


@pytest.mark.parametrize("name", ALWAYS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_paired_test_of_identical_systems_finds_no_difference(name: str, language: str, corpus: Corpus):
    first, second = (measured(name, corpus(language, "ragged")) for _ in range(2))
    tested = paired_test(first, second, resamples=200, trials=200)
    nothing = [0.0] * len(first.specs)
    assert tested.difference.tolist() == tested.low.tolist() == tested.high.tolist() == nothing
    assert tested.p_bootstrap.tolist() == tested.p_randomization.tolist() == [1.0] * len(first.specs)


@pytest.mark.parametrize("name", ["bleu", "chrf", "chrf++", "ter", "rouge", "exact_match", "f1"])
def test_paired_test_finds_a_clearly_better_system(name: str):
    worse, better = english(40, wrong=0.7, seed=1), english(40, wrong=0.05, seed=2)
    tested = paired_test(measured(name, worse), measured(name, better), resamples=500, trials=500)
    assert (tested.p_bootstrap < 0.01).all()
    assert (tested.p_randomization < 0.01).all()
    assert (tested.low <= tested.difference).all()
    assert (tested.difference <= tested.high).all()
    assert ((tested.high < 0) if name == "ter" else (tested.low > 0)).all()


@pytest.mark.parametrize("name", ["bleu", "chrf", "ter", "rouge", "f1"])
def test_paired_test_is_symmetric(name: str):
    first, second = (measured(name, english(20, wrong=wrong, seed=seed)) for wrong, seed in ((0.5, 1), (0.4, 2)))
    there, back = paired_test(first, second, trials=400), paired_test(second, first, trials=400)
    assert (there.difference != 0).all()
    assert back.difference.tolist() == (-there.difference).tolist()
    assert back.p_randomization.tolist() == there.p_randomization.tolist()
    assert back.p_bootstrap.tolist() == there.p_bootstrap.tolist()
    assert (back.low, back.high) == (pytest.approx(-there.high), pytest.approx(-there.low))


def test_paired_test_depends_on_the_seed_only():
    rng = np.random.default_rng(0)
    first, second = mean_of(rng.random(30)), mean_of(rng.random(30))

    def numbers(tested: PairedTest) -> list[float]:
        return [*tested.low, *tested.high, *tested.p_bootstrap, *tested.p_randomization]

    one, again, other = (numbers(paired_test(first, second, trials=999, seed=seed)) for seed in (5, 5, 6))
    assert one == again
    assert one != other


def test_paired_test_compares_examples_in_pairs():
    # Examples differ much more than the systems do: unpaired, nothing could be said.
    rng = np.random.default_rng(0)
    first = rng.random(100)
    tested = paired_test(mean_of(first), mean_of(first + 0.01 + 0.01 * rng.standard_normal(100)), trials=2000)
    assert tested.difference[0] == pytest.approx(0.01, abs=0.004)
    assert tested.high[0] - tested.low[0] < 0.006
    assert tested.p_randomization[0] < 0.002
    assert tested.p_bootstrap[0] < 0.002


@pytest.mark.parametrize("draw", ["random", "standard_exponential", "standard_normal"])
def test_paired_test_interval_is_close_to_the_normal_one(draw: str):
    rng = np.random.default_rng(0)
    first, second = rng.random(400), getattr(rng, draw)(400)
    tested = paired_test(mean_of(first), mean_of(second), resamples=4000, trials=10)
    differences = second - first
    half = 1.959964 * differences.std() / math.sqrt(400)
    assert tested.difference[0] == pytest.approx(differences.mean(), abs=1e-12)
    assert tested.low[0] == pytest.approx(differences.mean() - half, abs=half / 8)
    assert tested.high[0] == pytest.approx(differences.mean() + half, abs=half / 8)


def share_as_far(differences: Sequence[float], observed: float) -> float:
    return float(np.mean(np.abs(differences) >= abs(observed) - 1e-9))


@pytest.mark.parametrize(
    ("values", "by_hand"),
    [
        ([0.1, 0.2, 0.3, 0.4], 2 / 16),
        ([0.1, 0.1, 0.1, 0.1], 2 / 16),
        # 4 of 5, or the other way round: beside none or all, one sign may differ from the rest, 5 ways each.
        ([0.1, 0.1, 0.1, 0.1, -0.1], 12 / 32),
        ([0.5, -0.1, 0.2, 0.05], None),
        ([0.5, 0.0, 0.0, -0.5], 1),
        ([0.3, 0.0, 0.0, 0.0], 1),
        ([0.3, -0.2, 0.7, 0.4, 0.1, 0.6, -0.05], None),
    ],
)
def test_paired_test_of_few_examples_tries_all_permutations(values: list[float], by_hand: float | None):
    signs = list(itertools.product([1, -1], repeat=len(values)))
    exact = share_as_far([np.dot(sign, values) / len(values) for sign in signs], np.mean(values))
    assert by_hand is None or exact == pytest.approx(by_hand)
    base = np.linspace(0.2, 0.6, len(values))
    tested = paired_test(mean_of(base), mean_of(base + values), resamples=10, trials=20_000)
    assert tested.p_randomization[0] == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize("name", ["bleu", "ter", "rouge"])
def test_paired_test_of_a_corpus_score_tries_all_exchanges(name: str):
    # Outputs are exchanged as texts and scored from the beginning, 2^5 times.
    first, second = english(5, wrong=0.6, seed=1), english(5, wrong=0.3, seed=4)

    def difference(exchanged: Sequence[bool]) -> np.ndarray:
        sides = [
            [replace(a, prediction=(b if swap else a).prediction) for a, b, swap in zip(*pair, exchanged, strict=True)]
            for pair in ((first, second), (second, first))
        ]
        before, after = (corpus_values(measured(name, side)) for side in sides)
        return after - before

    observed = difference([False] * 5)
    everything = np.array([difference(exchanged) for exchanged in itertools.product([False, True], repeat=5)])
    tested = paired_test(measured(name, first), measured(name, second), resamples=10, trials=10_000)
    assert tested.difference == pytest.approx(observed)
    for place, p in enumerate(tested.p_randomization):
        exact = share_as_far(everything[:, place], observed[place])
        assert 0.05 < exact < 1, "a probability that any test would give says nothing"
        assert p == pytest.approx(exact, abs=0.02)


def test_paired_test_p_is_never_0():
    # The observed outcome is one of those that can be.
    tested = paired_test(mean_of([0.0] * 60), mean_of([1.0] * 60), resamples=99, trials=199)
    assert tested.p_bootstrap[0] == pytest.approx(1 / 100)
    assert tested.p_randomization[0] == pytest.approx(1 / 200)


def test_paired_test_p_is_uniform_without_a_difference():
    rng = np.random.default_rng(0)
    found = []
    for seed in range(400):
        shared = rng.random(60)
        sides = [mean_of(shared + 0.2 * rng.standard_normal(60), shared + rng.standard_exponential(60)) for _ in "ab"]
        tested = paired_test(*sides, resamples=199, trials=199, seed=seed)
        found.append([*tested.p_randomization, *tested.p_bootstrap])
    values = np.array(found)
    # Standard deviations: 1.4 points of the mean, 1.1 of a share of 5%, 2.5 of one of 50%.
    assert values.mean(axis=0) == pytest.approx(0.5, abs=0.05)
    for share, bound in ((0.05, 0.035), (0.25, 0.07), (0.5, 0.08), (0.9, 0.05)):
        assert (values <= share).mean(axis=0) == pytest.approx(share, abs=bound)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (mean_of([0.1, 0.2]), mean_of([0.1, 0.2, 0.3])),
        (mean_of([0.1, 0.2]), mean_of([0.1, 0.2], [0.3, 0.4])),
    ],
    ids=["other examples", "other statistics"],
)
def test_paired_test_refuses_different_shapes(first: Measurement, second: Measurement):
    with pytest.raises(ValueError, match=r"\(2, 2\).*cannot be paired"):
        paired_test(first, second)


def test_paired_test_p_of_an_absent_part_is_nan():
    nan = math.nan
    first, second = mean_of([0.1, 0.2, 0.3], [nan] * 3), mean_of([0.4, 0.6, 0.5], [nan] * 3)
    tested = paired_test(first, second, resamples=50, trials=50)
    for numbers in (tested.difference, tested.low, tested.high, tested.p_bootstrap, tested.p_randomization):
        assert np.isnan(numbers).tolist() == [False, True]


def test_paired_test_of_few_examples_is_exact_for_any_seed():
    first, second = mean_of([0.1, 0.2, 0.3, 0.4]), mean_of([0.2, 0.4, 0.6, 0.3])
    # Differences 1, 2, 3 and -1: of 16 ways to swap, those whose sum is 5 or more away from 0 are counted by hand:
    # all signs kept (5), the last one turned (7), the first two alone the other way are nearer; and their mirrors,
    # with 1 + 2 + 3 + 1 = 7, -1 + 2 + 3 + 1 = 5, 1 + 2 + 3 - 1 = 5.
    for seed in range(3):
        tested = paired_test(first, second, trials=1000, seed=seed)
        assert tested.p_randomization.tolist() == [6 / 16]
