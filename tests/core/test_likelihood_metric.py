"""Scores of the log-likelihoods that a run stored in its samples."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtasks import LogLikelihood, Metric, Sample, Score
from lmtasks.errors import MetricError
from lmtasks.metrics import find_metrics, score_samples

# A log-probability, tokens and bytes.
MetricResult = tuple[float, int, int]


def sample(*measured: MetricResult, index: int = 0, language: str = "en", prediction: str = "") -> Sample:
    return Sample(
        index=index,
        id=f"example {index}",
        inputs={},
        references=tuple("x" * size for _, _, size in measured),
        language=language,
        prediction=prediction,
        loglikelihoods=tuple(LogLikelihood(logprob=value, tokens=count, bytes=size) for value, count, size in measured),
    )


def scores(*samples: Sample, resamples: int = 0) -> dict[str, Score]:
    metrics = find_metrics(["loglikelihood", "perplexity"], no_plugin)
    return {score.name: score for score in score_samples(samples, metrics, resamples=resamples)}


def no_plugin(name: str) -> Metric:
    raise AssertionError(f"asked a plugin for {name}")


def test_likelihood_weighs_all_tokens_and_bytes_equally():
    # By hand: -12 nats over 4 tokens and 24 bytes; a mean of the examples' own means would be another number.
    found = scores(sample((-2.0, 1, 4)), sample((-10.0, 3, 20), index=1))
    assert {name: score.value for name, score in found.items()} == {
        "logprob_per_byte": pytest.approx(-0.5),
        "logprob_per_token": pytest.approx(-3),
        "perplexity": pytest.approx(math.exp(3)),
    }


def test_perplexity_of_uniform_guesses_is_their_number():
    found = scores(*(sample((-count * math.log(50), count, 7), index=count) for count in (1, 4, 9)))
    assert found["perplexity"].value == pytest.approx(50)


def test_perplexity_of_a_certain_model_is_1():
    found = scores(sample((0.0, 3, 9)))
    assert [score.value for score in found.values()] == [0, 0, 1]


def test_likelihood_counts_every_reference():
    several = scores(sample((-2.0, 1, 4), (-6.0, 2, 8)))
    assert several["logprob_per_token"].value == pytest.approx(-8 / 3)
    assert several["logprob_per_byte"].value == pytest.approx(-8 / 12)


def test_likelihood_scores_have_units_and_signatures():
    found = scores(sample((-2.0, 1, 4), (-6.0, 2, 8)), sample((-10.0, 3, 20), index=1))
    expected = {
        "logprob_per_byte": ("nats", True, "bytes:32"),
        "logprob_per_token": ("nats", True, "tokens:6"),
        "perplexity": ("1 is best", False, "tokens:6"),
    }
    assert list(found) == list(expected)
    for name, (unit, higher_is_better, counted) in expected.items():
        score = found[name]
        assert (score.unit, score.higher_is_better, score.n) == (unit, higher_is_better, 2)
        assert score.signature == f"{name}|nrefs:var|agg:sum|end:no|{counted}|version:1|lang:en"


def test_likelihood_per_token_is_not_comparable_across_tokenizers():
    one, other = scores(sample((-2.0, 1, 4))), scores(sample((-2.0, 2, 4)))
    assert one["logprob_per_byte"] == other["logprob_per_byte"]
    for name in ("logprob_per_token", "perplexity"):
        assert one[name].signature != other[name].signature


def test_likelihood_ignores_the_prediction():
    assert scores(sample((-2.0, 1, 4), prediction="xxxx")) == scores(sample((-2.0, 1, 4)))


def test_likelihood_is_scored_for_each_language():
    samples = [sample((-2.0, 1, 4)), sample((-9.0, 3, 9), index=1, language="zh")]
    found = score_samples(samples, find_metrics(["perplexity"], no_plugin), resamples=0)
    assert [(score.name, score.language, score.value) for score in found] == [
        (name, language, pytest.approx(value))
        for language, mean in (("en", -2), ("zh", -3))
        for name, value in (("logprob_per_token", mean), ("perplexity", math.exp(-mean)))
    ]


@pytest.mark.parametrize("metric", ["loglikelihood", "perplexity"])
@pytest.mark.parametrize(
    "loglikelihoods",
    [(), (LogLikelihood(logprob=-1.0, tokens=1, bytes=1),)],
    ids=["none", "fewer than references"],
)
def test_likelihood_refuses_samples_without_loglikelihoods(metric: str, loglikelihoods: Sequence[LogLikelihood]):
    without = Sample(
        index=1,
        id="the second",
        inputs={},
        references=("x", "y"),
        prediction="x",
        language="en",
        loglikelihoods=tuple(loglikelihoods),
    )
    with pytest.raises(MetricError) as caught:
        score_samples([sample((-1.0, 1, 1)), without], find_metrics([metric], no_plugin))
    assert f'metric "{metric}" needs log-likelihoods' in str(caught.value)
    assert 'example "the second"' in str(caught.value)
    assert "loglikelihood=True" in str(caught.value)


measurements = st.tuples(st.floats(-500, 0), st.integers(1, 60), st.integers(1, 400))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(measurements, min_size=1, max_size=3), min_size=1, max_size=8))
def test_likelihood_scores_are_ratios_of_sums(rows: list[list[MetricResult]]):
    found = scores(*(sample(*row, index=index) for index, row in enumerate(rows)))
    logprob, tokens, size = (sum(column) for column in zip(*(each for row in rows for each in row), strict=True))
    assert found["logprob_per_byte"].value == pytest.approx(logprob / size)
    assert found["logprob_per_token"].value == pytest.approx(logprob / tokens)
    assert found["perplexity"].value == pytest.approx(math.exp(-logprob / tokens))


def test_likelihood_interval_contains_the_ratio_of_sums():
    found = scores(*(sample((-(index % 7) - 1.0, 1 + index % 3, 9), index=index) for index in range(60)), resamples=300)
    for score in found.values():
        assert score.low < score.value < score.high


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param([sample((0.0, 0, 0))], id="no answer alone"),
        pytest.param([sample((0.0, 0, 0)), sample((-2.0, 1, 2), index=1)], id="no answer among answers"),
    ],
)
def test_likelihood_of_blank_references_makes_no_numpy_warning(samples: list[Sample]):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores(*samples, resamples=100)
