"""From samples to scores: groups, signatures, order, metrics of plugins, and nothing fetched."""

from __future__ import annotations

import os
import pickle
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtasks import LogLikelihood, Measurement, Metric, Sample, Score, ScoreSpec
from lmtasks.errors import MetricError, PluginError, UnknownNameError
from lmtasks.metrics import BUILTIN_METRICS, find_metrics, measure_samples, score_outputs, score_samples

Corpus = Callable[..., list[Sample]]

LANGUAGES = ("en", "zh", "ja", "ko", "th")
SIGNED_NREFS = {"one": "nrefs:1", "three": "nrefs:3", "ragged": "nrefs:var"}
ALWAYS = ("bleu", "chrf", "chrf++", "ter", "rouge", "exact_match", "f1", "loglikelihood", "perplexity")
"""Metrics that need nothing more than lmtasks, without those that differ by a setting alone."""
NAMES = [
    *("BLEU", "chrF", "chrF++", "TER"),
    *("rouge1", "rouge2", "rougeL", "rougeLsum"),
    *("exact_match", "f1"),
    *("logprob_per_byte", "logprob_per_token", "perplexity"),
]
NEEDS = {"bleu:ja-mecab": "MeCab", "bleu:ko-mecab": "mecab_ko", "rouge:jieba": "jieba"}
INSTALLED = [metric for name, metric in BUILTIN_METRICS.items() if name not in NEEDS or find_spec(NEEDS[name])]
needs_jieba = pytest.mark.skipif(find_spec("jieba") is None, reason="jieba is not installed")
ON_CHINESE = [pytest.param(name, marks=needs_jieba if name == "rouge:jieba" else ()) for name in BUILTIN_METRICS]
"""All metrics of core; those for Japanese and Korean words measure Chinese as "bleu" does."""


def sample(
    prediction: str, *references: str, language: str | None = None, index: int = 0, finish_reason: str = "stop"
) -> Sample:
    return Sample(
        index=index,
        id=str(index),
        inputs={},
        references=references,
        language=language,
        prediction=prediction,
        finish_reason=finish_reason,
        loglikelihoods=tuple(
            LogLikelihood(logprob=-1.1 * len(text), tokens=len(text), bytes=len(text.encode())) for text in references
        ),
    )


def numbered(samples: Sequence[Sample]) -> list[Sample]:
    return [replace(each, index=index, id=str(index)) for index, each in enumerate(samples)]


def scores(samples: Sequence[Sample], *metrics: str | Metric) -> dict[str, Score]:
    """By name, of a set in one language."""
    found = score_samples(samples, find_metrics(metrics or ALWAYS, no_plugin), resamples=0)
    named = {score.name: score for score in found}
    assert len(named) == len(found)
    return named


def no_plugin(name: str) -> Metric:
    raise AssertionError(f"asked a plugin for {name}")


# What every metric of core keeps to


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", ON_CHINESE)
def test_statistics_of_parts_add_up_to_the_corpus(name: str, language: str, corpus: Corpus):
    samples = corpus(language, "three")
    exact = samples[0].references[0]
    samples.append(sample(exact, exact, language=language, index=4))
    whole, first, second = (
        BUILTIN_METRICS[name].measure(part, language) for part in (samples, samples[:2], samples[2:])
    )
    expected = whole.combine(whole.statistics.sum(axis=0))
    assert len(whole.statistics) == 5
    assert len(expected) == len(whole.specs)
    assert (expected != 0).all()
    parts = first.statistics.sum(axis=0) + second.statistics.sum(axis=0)
    assert whole.combine(parts) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", BUILTIN_METRICS.values(), ids=BUILTIN_METRICS)
def test_combine_accepts_many_rows_of_sums(metric: Metric, corpus: Corpus):
    samples = corpus("en", "three")
    measurement = metric.measure(samples, "en")
    weights = np.array([[[1, 1, 1, 1], [2, 0, 1, 1]], [[0, 4, 0, 0], [1, 3, 0, 0]], [[0, 0, 2, 2], [1, 0, 0, 3]]])
    values = measurement.combine(weights @ measurement.statistics)
    assert values.shape == (3, 2, len(measurement.specs))
    for place in np.ndindex(3, 2):
        drawn = [each for each, times in zip(samples, weights[place], strict=True) for _ in range(times)]
        again = metric.measure(drawn, "en")
        assert values[place] == pytest.approx(again.combine(again.statistics.sum(axis=0)))


@pytest.mark.parametrize("nrefs", SIGNED_NREFS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_scores_have_units_and_signatures(language: str, nrefs: str, corpus: Corpus):
    found = scores(corpus(language, nrefs))
    assert list(found) == NAMES
    for name, score in found.items():
        parts = score.signature.split("|")
        assert parts[0] == name
        assert parts[-1] == f"lang:{language}"
        assert SIGNED_NREFS[nrefs] in parts
        assert any(part.startswith("version:") for part in parts)
        assert (score.n, score.language) == (4, language)
        assert score.higher_is_better is (name not in ("TER", "perplexity"))
        if score.unit == "0-100":
            assert 0 <= score.value <= 100


@pytest.mark.parametrize("language", ["en", "th"])
def test_scores_of_metrics_and_settings_differ_in_name_and_signature(language: str, corpus: Corpus):
    found = score_samples(corpus(language), BUILTIN_METRICS.values(), resamples=0)
    others = [f"{kind}:{setting}" for setting in ("nostem", "jieba", "char") for kind in NAMES[4:8]]
    assert {score.name for score in found} == {*NAMES, "BLEU:ja-mecab", "BLEU:ko-mecab", *others}
    assert len(found) == len({score.name for score in found}) == len({score.signature for score in found})


# Order

POOL = [
    *(
        sample(prediction, *references)
        for prediction, *references in [
            ("渡轮九点离开港口。", "渡轮九点钟离开港口。", "九点渡轮离开港口。"),
            ("它晚上六点钟返回。", "它晚上六点回来。"),
            ("", "船上没有人。"),
            ("这里的面包两欧元！它很贵。", "面包两欧元。它很贵。"),
            ("The ferry leaves at nine. It returns.", "The ferry leaves the harbour at nine o'clock. It returns!"),
            ("It comes back at six in the evening.", "It returns at six o'clock in the evening.", "It returns."),
            ("The bread costs two euros here.", "Bread costs two euros."),
            ("港口 1943", "1943"),
            ("nichts", ""),
        ]
    ),
    sample("Die Fähre", "Die Fähre fährt um neun", language="de"),
    sample("Das Brot hier kostet nur zwei Euro", "Brot kostet zwei Euro", language="de"),
    sample("Sie kommt", "Sie kommt um sechs zurück", language="de"),
    sample("", "", language="de"),
]


def point_scores(samples: Sequence[Sample]) -> list[tuple[str, str, int, float]]:
    found = [*score_samples(samples, INSTALLED, resamples=0), *score_outputs(samples, resamples=0)]
    return sorted((score.name, score.signature, score.n, score.value) for score in found)


IN_ORDER = point_scores(numbered(POOL))


@settings(max_examples=15, deadline=None)
@given(st.permutations(POOL))
def test_scores_do_not_depend_on_the_order_of_examples(samples: list[Sample]):
    assert point_scores(numbered(samples)) == IN_ORDER


@settings(max_examples=5, deadline=None)
@given(st.permutations(numbered(POOL)))
def test_scores_do_not_depend_on_the_order_of_samples(samples: list[Sample]):
    assert point_scores(samples) == IN_ORDER


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(0, 2**32), min_size=200, max_size=200), st.randoms(use_true_random=False))
def test_scores_of_long_sets_do_not_depend_on_order(seeds: list[int], shuffler: random.Random):
    # Fractions of 200 examples: a plain sum of them depends on their order in the last digits.
    words = [f"w{seed % 13}" for seed in seeds]
    samples = [
        sample(" ".join(words[at : at + 1 + seed % 5]), " ".join(words[at // 2 : at // 2 + 7]), language="en")
        for at, seed in enumerate(seeds)
    ]
    shuffled = shuffler.sample(samples, len(samples))
    names = ("rouge", "f1", "loglikelihood")
    assert scores(numbered(shuffled), *names) == scores(numbered(samples), *names)


@pytest.mark.parametrize(
    "texts", [("여섯 시", "九点离港"), ("九点离港", "1943"), ("여섯 시", "九点离港", "다섯 시", "九点", "1943")]
)
def test_scores_do_not_depend_on_order_without_a_majority_language(texts: tuple[str, ...]):
    samples = [sample(text[:2], text) for text in texts]
    assert point_scores(numbered(samples[::-1])) == point_scores(numbered(samples))


def test_language_of_a_long_set_does_not_depend_on_order():
    english = (
        "the ferry leaves this harbour every morning at nine and nobody who works there has ever asked why people"
        " would rather wait for another boat which returns when their children should already have been sleeping"
    )
    german = (
        "die Fähre verlässt diesen Hafen jeden Morgen um neun und niemand der dort arbeitet hat jemals gefragt warum"
        " Leute lieber auf ein anderes Schiff warten das zurückkommt wenn ihre Kinder schon längst schlafen sollten"
    )
    rng = random.Random(0)
    texts = [" ".join(rng.choices(words.split(), k=40)) for words in (english, german) for _ in range(120)]
    samples = [sample(text, text) for text in texts]
    forwards, backwards = (
        score_samples(numbered(each), [BUILTIN_METRICS["rouge"]], resamples=0) for each in (samples, samples[::-1])
    )
    assert {score.signature for score in forwards} == {score.signature for score in backwards}


# Languages


def test_scores_of_a_mixed_set_start_with_the_largest_language():
    samples = [
        sample("nine ferries", "nine ferries", index=0),
        sample("九点离开", "九点离开", index=1),
        sample("六点返回", "五点返回", index=2),
        sample("九時に出ます", "船は九時に出る", index=3),
        sample("九点", "九点离开港口", index=4),
        sample("boats", "ferry", index=5),
    ]
    found = score_samples(samples, [BUILTIN_METRICS["f1"]])
    assert [(score.language, score.n) for score in found] == [("zh", 3), ("en", 2), ("ja", 1)]
    assert [score.value for score in found[:2]] == pytest.approx([(100 + 75 + 50) / 3, 50])


def test_scores_keep_the_order_of_metrics_within_a_language(corpus: Corpus):
    assert list(scores(corpus("en"), "f1", "chrf", "bleu")) == ["f1", "chrF", "BLEU"]


def test_signature_states_whether_the_language_was_read():
    stated = scores([sample("九点", "九点", language="zh")])
    read = scores([sample("九点", "九点")])
    for name in stated:
        assert stated[name].signature.endswith("|lang:zh")
        assert read[name].signature == stated[name].signature + "(script)"
        assert stated[name].language == read[name].language == "zh"


def test_scores_separate_stated_from_read_languages():
    found = score_samples(
        [sample("九点", "九点", language="zh"), sample("六点", "五点", index=1)], [BUILTIN_METRICS["exact_match"]]
    )
    assert {(score.signature.rpartition("|")[2], score.value, score.n) for score in found} == {
        ("lang:zh", 100, 1),
        ("lang:zh(script)", 0, 1),
    }


def test_scores_read_the_language_from_references_only():
    assert scores([sample("the ferry leaves", "渡轮离开")])["BLEU"].language == "zh"


def test_scores_of_text_without_letters_have_no_language():
    score = scores([sample("1943", "1943")])["exact_match"]
    assert score.language is None
    assert score.signature.endswith("|lang:unknown(script)")
    assert score.value == 100


# Which samples


def test_scores_omit_skipped_samples_and_those_without_references():
    samples = [
        sample("nine", "nine", language="en"),
        sample("", "ferry", language="en", index=1, finish_reason="skipped"),
        sample("bread", language="en", index=2),
        sample("boats", "bread", language="en", index=3, finish_reason="length"),
    ]
    score = scores(samples)["exact_match"]
    assert (score.value, score.n) == (50, 2)
    assert "|nrefs:1|" in score.signature


def test_score_samples_returns_nothing_without_references():
    assert score_samples([], BUILTIN_METRICS.values()) == []
    assert score_samples([sample("x"), sample("", "x", finish_reason="skipped")], BUILTIN_METRICS.values()) == []


def test_score_samples_accepts_a_generator_of_metrics():
    samples = [sample("nine", "nine", language="en"), sample("九点", "九点", language="zh", index=1)]
    assert len(score_samples(samples, (BUILTIN_METRICS[name] for name in ("f1", "exact_match")))) == 4


def test_measure_samples_keeps_rows_and_samples_in_the_same_order(corpus: Corpus):
    samples = [*corpus("zh"), sample("nine", "nine", language="en", index=4)]
    chinese, english = measure_samples(samples[::-1], [BUILTIN_METRICS["f1"]])
    assert list(chinese.samples) == corpus("zh")
    assert (chinese.metric, chinese.language, english.language) == ("f1", "zh", "en")
    assert len(chinese.measurement.statistics) == 4
    assert english.signature(0) == "f1|norm:squad1.1|nrefs:1|agg:max|version:1|lang:en"


# Intervals


@pytest.mark.parametrize("language", ["en", "th"])
def test_scores_lie_within_their_intervals(language: str, corpus: Corpus):
    found = score_samples(corpus(language, "ragged"), find_metrics(ALWAYS, no_plugin), resamples=200)
    assert [score.name for score in found] == NAMES
    for score in found:
        assert score.low <= score.value <= score.high
    assert all(score.low < score.high for score in found if score.name != "exact_match")


def test_intervals_depend_on_the_seed(corpus: Corpus):
    metrics = find_metrics(("chrf", "rouge"), no_plugin)
    first, again, other = (score_samples(corpus("en"), metrics, resamples=100, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert [replace(score, low=None, high=None) for score in first] == [
        replace(score, low=None, high=None) for score in other
    ]
    assert first != other


def test_intervals_need_resamples_and_two_examples(corpus: Corpus):
    for samples, resamples in ((corpus("en"), 0), (corpus("en")[:1], 100)):
        found = score_samples(samples, find_metrics(ALWAYS, no_plugin), resamples=resamples)
        assert {(score.low, score.high) for score in found} == {(None, None)}


# Metrics of plugins


@dataclass(frozen=True)
class LengthRatio(Metric):
    """What a plugin may bring: characters written for each wanted one."""

    name: str = "length_ratio"

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        lengths = [[len(each.prediction), len(each.references[0])] for each in samples]
        kind = ScoreSpec(name=self.name, signature=f"ratio|of:{language}", unit="ratio", higher_is_better=False)
        return Measurement(
            statistics=np.array(lengths, dtype=float),
            specs=(kind,),
            combine=lambda sums: sums[..., :1] / sums[..., 1:],
        )


def test_plugin_metric_is_scored_like_a_builtin_one():
    metric = LengthRatio()
    assert isinstance(metric, Metric)
    samples = [sample("four", "eight888", language="en"), sample("", "four", language="en", index=1)]
    (score,) = score_samples(samples, [metric])
    assert score == Score(
        name="length_ratio",
        value=4 / 12,
        unit="ratio",
        signature="ratio|of:en|lang:en",
        higher_is_better=False,
        language="en",
        n=2,
        # Of 4 resamples, 1 has the first example alone, and 1 the second.
        low=0,
        high=0.5,
    )


def raise_error(*_: object) -> Measurement:
    raise KeyError("weights")


def too_many_values(measurement: Measurement) -> Measurement:
    return replace(measurement, combine=lambda sums: np.zeros(3))


def too_few_rows(measurement: Measurement) -> Measurement:
    return replace(measurement, statistics=measurement.statistics[1:])


def failing_combine(measurement: Measurement) -> Measurement:
    return replace(measurement, combine=raise_error)


@pytest.mark.parametrize("spoil", [raise_error, lambda _: None, failing_combine, too_many_values, too_few_rows])
def test_metric_that_fails_is_named(spoil):
    class Broken(LengthRatio):
        def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
            return spoil(super().measure(samples, language))

    with pytest.raises(PluginError, match='metric "broken"') as caught:
        score_samples([sample("x", "x", language="en")], [Broken("broken")])
    assert caught.value.__cause__ is not None
    assert type(caught.value.__cause__).__name__ in str(caught.value)


def test_builtin_metric_error_is_not_reported_for_a_plugin():
    with pytest.raises(MetricError, match='^metric "perplexity" needs log-likelihoods'):
        bare = replace(sample("x", "x", language="en"), loglikelihoods=())
        score_samples([bare], find_metrics(["perplexity"], no_plugin))


def test_plugin_metric_error_of_our_class_is_reported_for_the_plugin():
    class Choosy(LengthRatio):
        def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
            raise MetricError("these samples will not do")

    with pytest.raises(PluginError, match='^metric "length_ratio" failed: MetricError: these samples will not do'):
        score_samples([sample("x", "x", language="en")], [Choosy()])


# From names to metrics


def test_find_metrics_accepts_builtin_and_plugin_names_and_metrics():
    asked = []

    def from_plugin(name: str) -> Metric:
        asked.append(name)
        return LengthRatio("from plugin")

    mine = LengthRatio("mine")
    found = find_metrics(["bleu", "lengths/ratio", mine, "rouge"], from_plugin)
    assert [metric.name for metric in found] == ["bleu", "from plugin", "mine", "rouge"]
    assert found[2] is mine
    assert asked == ["lengths/ratio"]


def test_find_metrics_returns_each_metric_once():
    found = find_metrics(["rouge", "chrf", "rouge", BUILTIN_METRICS["chrf"]], no_plugin)
    assert found == (BUILTIN_METRICS["rouge"], BUILTIN_METRICS["chrf"])


def test_find_metrics_calls_check():
    class Missing(LengthRatio):
        def check(self) -> None:
            raise MetricError("its package is missing")

    with pytest.raises(MetricError, match="its package is missing"):
        find_metrics(["bleu", Missing()], no_plugin)
    with pytest.raises(MetricError, match="its package is missing"):
        find_metrics(["a/missing"], lambda _: Missing())


@pytest.mark.parametrize("odd", [3, None, b"rouge", ("rouge",), object])
def test_find_metrics_refuses_other_objects_in_one_line(odd):
    with pytest.raises(MetricError, match=r"^.*neither the name of a metric nor an lmtasks.Metric$"):
        find_metrics(["rouge", odd], no_plugin)


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("rogue", "Did you mean rouge or rouge:char or rouge:jieba?"),
        ("rouge:nosten", "Did you mean rouge:nostem"),
        ("exactmatch", "Did you mean exact_match?"),
        ("BLEU", "Did you mean bleu?"),
        ("xyzxyz", "Known: bleu, bleu:ja-mecab, bleu:ko-mecab, chrf, chrf++,"),
    ],
)
def test_find_metrics_offers_the_nearest_name(name: str, offered: str):
    with pytest.raises(UnknownNameError) as caught:
        find_metrics(["bleu", name], no_plugin)
    assert f'unknown metric "{name}"' in str(caught.value)
    assert offered in str(caught.value)


def test_builtin_metrics_are_registered_under_their_names():
    assert set(BUILTIN_METRICS) == {
        *ALWAYS,
        "bleu:ja-mecab",
        "bleu:ko-mecab",
        "rouge:nostem",
        "rouge:jieba",
        "rouge:char",
    }
    for name, metric in BUILTIN_METRICS.items():
        assert isinstance(metric, Metric)
        assert metric.name == name


# Nothing is fetched


@pytest.mark.parametrize("language", LANGUAGES)
def test_scoring_needs_no_network(language: str, corpus: Corpus, monkeypatch: pytest.MonkeyPatch):
    tried = []

    class Refused(socket.socket):
        def __init__(self, *arguments: object, **_: object) -> None:
            refuse(*arguments)

    def refuse(*arguments: object, **_: object) -> None:
        tried.append(arguments)
        raise OSError("a metric went to the network")

    monkeypatch.setattr(socket, "socket", Refused)
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    samples = [replace(each, inputs={"source": "Nine."}) for each in corpus(language, "ragged")]
    assert list(scores(samples)) == NAMES
    assert "wrong_language" in {score.name for score in score_outputs(samples)}
    assert tried == []


WITHOUT_NETWORK = """
import pickle, sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise SystemExit(f"went to the network: {event} {arguments}")

sys.addaudithook(refuse)

from lmtasks.metrics import find_metrics, score_outputs, score_samples

names, corpora = pickle.load(sys.stdin.buffer)
metrics = find_metrics(names, None)
print(sum(len(score_samples(samples, metrics)) + len(score_outputs(samples)) for samples in corpora))
"""


def test_scoring_in_a_new_process_needs_no_network_and_no_home(corpus: Corpus, tmp_path: Path):
    # What is fetched once and kept by a library would pass unseen in a process or home that already has it.
    given = pickle.dumps((ALWAYS, [corpus(language, "ragged") for language in LANGUAGES]))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "NLTK_"))}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK],
        input=given,
        capture_output=True,
        env=kept | {"HOME": str(tmp_path)},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr.decode()
    # Without inputs, there is nothing to copy from.
    health = ("empty", "unfinished", "repeating", "wrong_language", "length_ratio")
    assert int(done.stdout) == len(LANGUAGES) * (len(NAMES) + len(health))


@pytest.mark.parametrize(
    ("language", "reference", "problem"),
    [
        ("cn", "渡轮九点离开港口。", '"cn", but look like zh'),
        ("en", "渡轮九点离开港口。", '"en", but look like zh'),
        ("zh", "The ferry leaves at nine.", '"zh", but look like Latn'),
    ],
)
def test_language_warning_for_a_stated_language_of_another_script(
    language: str, reference: str, problem: str, caplog: pytest.LogCaptureFixture
):
    score_samples([sample("x", reference, language=language)], [BUILTIN_METRICS["chrf"]], resamples=0)
    assert problem in caplog.text


@pytest.mark.parametrize(
    ("language", "reference"),
    [("zh", "渡轮"), ("ja", "九時出発"), ("ko", "여섯 시"), ("de", "Die Fähre"), ("zh", "1943"), ("th", "เรือ")],
)
def test_language_warning_is_none_for_a_stated_language_that_fits(
    language: str, reference: str, caplog: pytest.LogCaptureFixture
):
    score_samples([sample("x", reference, language=language)], [BUILTIN_METRICS["chrf"]], resamples=0)
    assert caplog.text == ""


def test_language_warning_for_a_mixed_set(caplog: pytest.LogCaptureFixture):
    english = [sample("x", "The ferry leaves at nine every morning.", index=at) for at in range(3)]
    score_samples([*english, sample("x", "渡轮九点离开港口。", index=3)], [BUILTIN_METRICS["chrf"]], resamples=0)
    assert "3 as en, 1 as zh, each scored for itself; set language to score all as one" in caplog.text
