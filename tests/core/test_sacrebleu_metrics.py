"""BLEU, chrF, chrF++ and TER are sacrebleu's, with the tokenizer that the language wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import zip_longest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF, TER

from lmtasks import Metric, Sample, Score
from lmtasks.errors import MetricError
from lmtasks.metrics import BUILTIN_METRICS, find_metrics, score_samples

Corpus = Callable[..., list[Sample]]

LANGUAGES = ("en", "zh", "ja", "ko", "th")
SIGNED_NREFS = {"one": "nrefs:1", "three": "nrefs:3", "ragged": "nrefs:var"}
TOKENIZERS = {"en": "13a", "zh": "zh", "ja": "char", "ko": "char", "th": "char"}
METRICS = ("bleu", "chrf", "chrf++", "ter")
WORDS = ("ferry", "harbour", "leaves", "nine", "bread", "costs", "evening", "returns", "boats", "Nobody", "1943")


def sample(prediction: str, *references: str, language: str | None = None, index: int = 0) -> Sample:
    return Sample(
        index=index, id=str(index), inputs={}, references=references, language=language, prediction=prediction
    )


def scores(samples: Sequence[Sample], *metrics: str) -> dict[str, Score]:
    """By name, of a set in one language."""
    found = score_samples(samples, find_metrics(metrics or METRICS, no_plugin), resamples=0)
    named = {score.name: score for score in found}
    assert len(named) == len(found)
    return named


def values(*samples: Sample) -> dict[str, float]:
    return {name: score.value for name, score in scores(samples).items()}


def no_plugin(name: str) -> Metric:
    raise AssertionError(f"asked a plugin for {name}")


def sacrebleu_metric(name: str, language: str) -> BLEU | CHRF | TER:
    """What a user of sacrebleu would write."""
    asian = language in ("zh", "ja")
    return {
        "BLEU": lambda: BLEU(tokenize=TOKENIZERS[language], force=True),
        "chrF": CHRF,
        "chrF++": lambda: CHRF(word_order=2),
        "TER": lambda: TER(normalized=asian, asian_support=asian),
    }[name]()


@pytest.mark.parametrize("nrefs", SIGNED_NREFS)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", ["BLEU", "chrF", "chrF++", "TER"])
def test_sacrebleu_metrics_have_scores_and_signatures_of_sacrebleu(
    name: str, language: str, nrefs: str, corpus: Corpus
):
    samples = corpus(language, nrefs)
    theirs = sacrebleu_metric(name, language)
    # Words are what stands between spaces for tercom: it is given the characters of Thai, and the signature says so.
    apart = name == "TER" and language == "th"
    prepare = " ".join if apart else str
    streams = [list(texts) for texts in zip_longest(*(map(prepare, each.references) for each in samples))]
    expected = theirs.corpus_score([prepare(each.prediction) for each in samples], streams).score
    score = scores(samples, name.lower())[name]
    assert score.value == pytest.approx(expected, abs=1e-9)
    assert score.signature == f"{name}|{theirs.get_signature()}{'|pretok:char' if apart else ''}|lang:{language}"
    assert SIGNED_NREFS[nrefs] in score.signature.split("|")
    assert name != "BLEU" or f"tok:{TOKENIZERS[language]}" in score.signature.split("|")
    assert (score.unit, score.n, score.language, score.higher_is_better) == ("0-100", 4, language, name != "TER")


# sacrebleu 2.6.0, once, by hand: BLEU(tokenize=..., force=True), CHRF(), CHRF(word_order=2) and TER(), with normalized
# and asian_support for Chinese and Japanese, spaces between the characters of Thai; corpus_score, rounded to 4 digits.
GOLDEN = {
    ("en", "one"): (56.8209, 69.0616, 68.6018, 40.0000),
    ("en", "three"): (76.9370, 73.1138, 72.7497, 33.8028),
    ("en", "ragged"): (63.1725, 69.0616, 68.6018, 36.2416),
    ("zh", "one"): (50.1971, 40.0999, 34.3714, 46.6667),
    ("zh", "three"): (86.8874, 61.3484, 52.5843, 25.8065),
    ("zh", "ragged"): (58.7753, 48.8511, 41.8724, 47.4576),
    ("ja", "one"): (48.2435, 49.2487, 42.2132, 35.7143),
    ("ja", "three"): (72.1804, 58.2256, 49.9077, 33.3333),
    ("ja", "ragged"): (59.5129, 49.4795, 42.4110, 36.5854),
    ("ko", "one"): (53.5525, 52.0708, 53.3716, 46.6667),
    ("ko", "three"): (73.7563, 61.9248, 63.3071, 41.8605),
    ("ko", "ragged"): (65.4320, 52.0708, 53.3716, 47.7273),
    ("th", "one"): (47.8000, 46.2682, 39.6585, 47.7273),
    ("th", "three"): (80.1138, 64.1594, 54.9938, 16.5899),
    ("th", "ragged"): (63.3250, 58.6637, 50.2832, 38.1356),
}


@pytest.mark.parametrize(("language", "nrefs"), GOLDEN)
def test_sacrebleu_metrics_golden_values(language: str, nrefs: str, corpus: Corpus):
    found = values(*corpus(language, nrefs))
    golden = dict(zip(("BLEU", "chrF", "chrF++", "TER"), GOLDEN[language, nrefs], strict=True))
    assert found == pytest.approx(golden, abs=5e-5)


# What may surprise


def test_bleu_of_a_perfect_answer_of_three_words_is_0():
    # The surprise of the reference implementation: there is no 4-gram, and sacrebleu smooths none into being.
    short = sample("nine bread costs", "nine bread costs", language="en")
    assert BLEU().corpus_score([short.prediction], [list(short.references)]).score == 0
    assert values(short)["BLEU"] == 0
    four = sample("nine bread costs two", "nine bread costs two", language="en")
    assert values(four)["BLEU"] == pytest.approx(100)


def test_sacrebleu_metrics_count_the_reference_of_an_empty_prediction():
    good = sample("bread costs two euros", "bread costs two euros", language="en")
    empty = sample("", "the ferry leaves at nine", language="en", index=1)
    together = scores([good, empty])
    # 4 words written where 9 were wanted: the brevity penalty exp(1 - 9 / 4), all precisions 1.
    assert together["BLEU"].value == pytest.approx(100 * np.exp(1 - 9 / 4))
    # 5 words to insert, of 9 words wanted.
    assert together["TER"].value == pytest.approx(100 * 5 / 9)
    assert together["chrF"].value < 80
    assert together["chrF++"].value < 80
    assert {score.n for score in together.values()} == {2}


@pytest.mark.parametrize("language", LANGUAGES)
def test_sacrebleu_metrics_of_empty_predictions_are_worst(language: str, corpus: Corpus):
    empty = [replace(each, prediction="") for each in corpus(language)]
    # TER has no worst value; 100 says that every word has to be written.
    assert values(*empty) == {"BLEU": 0, "chrF": 0, "chrF++": 0, "TER": 100}


def test_ter_can_be_more_than_100():
    assert values(sample("four words too many", "nine", language="en"))["TER"] == pytest.approx(400)


@pytest.mark.parametrize(
    ("language", "prediction", "reference", "edits", "words"),
    # By hand. Moving a run of words is one edit.
    [
        ("en", "the ferry leaves at nine", "the ferry leaves at six", 1, 5),
        ("en", "at nine the ferry leaves", "the ferry leaves at nine", 1, 5),
        ("en", "bread costs", "bread costs two euros", 2, 4),
        ("zh", "渡轮九点离港", "渡轮九点离开", 1, 6),
        ("zh", "九点渡轮离开", "渡轮九点离开", 1, 6),
        ("ja", "船は九時に出る", "船は六時に出る", 1, 7),
        ("th", "กลับหกโมง", "กลับเก้าโมง", 3, 11),
        ("ko", "배는 아홉 시에", "배는 여섯 시에", 1, 3),
    ],
)
def test_ter_counts_words_or_the_characters_of_unspaced_scripts(
    language: str, prediction: str, reference: str, edits: int, words: int
):
    assert values(sample(prediction, reference, language=language))["TER"] == pytest.approx(100 * edits / words)


def test_chrf_compares_words_only_as_chrf_plus_plus():
    # The same characters, divided in another way.
    found = values(sample("the ferry leaves at nine", "thef erryle avesat nine", language="en"))
    assert found["chrF"] == pytest.approx(100)
    assert found["chrF++"] < 90


# Tokenizers


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [
        *((tag, "zh") for tag in ("zh", "ZH", "zh-CN", "zh_CN", "zh-Hant-TW")),
        *((tag, "char") for tag in ("ja", "ja-JP", "ko", "ko-KR")),
        *((tag, "13a") for tag in ("en", "de", "fr-CA", "ru", "und-Latn", "th", "lo", "my", "km")),
    ],
)
def test_bleu_tokenizer_depends_on_zh_ja_and_ko_in_every_script(language: str, tokenizer: str):
    score = scores([sample("a", "a", language=language)], "bleu")["BLEU"]
    assert f"|tok:{tokenizer}|" in score.signature
    assert score.signature.endswith(f"|lang:{language}")


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("cmn-Hans", "今天天气很好"),
        ("yue", "今日天氣好好"),
        ("zho_Hans", "今天天气很好"),
        ("jpn_Jpan", "今日は晴れです"),
    ],
)
def test_bleu_tokenizer_knows_other_codes_of_chinese_and_japanese(language: str, text: str):
    found = scores([sample(text, text, language=language)])
    assert "tok:13a" not in found["BLEU"].signature
    assert found["BLEU"].value == pytest.approx(100)
    assert "|asian:yes|" in found["TER"].signature


@pytest.mark.parametrize(
    ("name", "module", "extra"), [("bleu:ja-mecab", "MeCab", "ja"), ("bleu:ko-mecab", "mecab_ko", "ko")]
)
def test_bleu_mecab_is_refused_without_mecab(name: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr("lmtasks.metrics.packages.find_spec", asked.append)
    with pytest.raises(MetricError) as caught:
        find_metrics(["chrf", name], no_plugin)
    assert asked == [module]
    assert f'metric "{name}"' in str(caught.value)
    assert f"pip install 'sacrebleu[{extra}]'" in str(caught.value)


@pytest.mark.parametrize("name", ["bleu:ja-mecab", "bleu:ko-mecab"])
@pytest.mark.parametrize("language", ["en", "zh", "th"])
def test_bleu_mecab_changes_only_its_language(name: str, language: str, corpus: Corpus):
    # The metric itself: nothing of MeCab is needed where its language is not.
    (usual,), (asked,) = (score_samples(corpus(language), [BUILTIN_METRICS[metric]]) for metric in ("bleu", name))
    label = name.replace("bleu", "BLEU")
    assert asked == replace(usual, name=label, signature=usual.signature.replace("BLEU", label, 1))


@pytest.mark.parametrize(
    ("name", "language", "module"), [("bleu:ja-mecab", "ja", "MeCab"), ("bleu:ko-mecab", "ko", "mecab_ko")]
)
def test_bleu_mecab_compares_words(name: str, language: str, module: str, corpus: Corpus):
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    samples = corpus(language, "ragged")
    score = scores(samples, name)[name.replace("bleu", "BLEU")]
    theirs = BLEU(tokenize=f"{language}-mecab", force=True)
    streams = [list(texts) for texts in zip_longest(*(each.references for each in samples))]
    assert score.value == pytest.approx(theirs.corpus_score([each.prediction for each in samples], streams).score)
    assert f"|tok:{language}-mecab" in score.signature


# Rules that hold for every text

english = st.lists(st.sampled_from(WORDS), min_size=4, max_size=12).map(" ".join)
chinese = st.text("渡轮九点离开港口返回今天面包", min_size=4, max_size=20)
BEST = {"BLEU": 100, "chrF": 100, "chrF++": 100, "TER": 0}


@settings(max_examples=25, deadline=None)
@given(st.lists(english, min_size=1, max_size=3))
def test_sacrebleu_metrics_are_best_for_identical_english_texts(texts: list[str]):
    samples = [sample(text, text, language="en", index=index) for index, text in enumerate(texts)]
    assert values(*samples) == pytest.approx(BEST)


@pytest.mark.parametrize("language", ["zh", "ja", "yue"])
@settings(max_examples=20, deadline=None)
@given(texts=st.lists(chinese, min_size=1, max_size=3))
def test_sacrebleu_metrics_are_best_for_identical_chinese_texts(language: str, texts: list[str]):
    samples = [sample(text, text, language=language, index=index) for index, text in enumerate(texts)]
    assert values(*samples) == pytest.approx(BEST)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(english, english, english), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_sacrebleu_metrics_ignore_the_order_of_references(rows: list[tuple[str, str, str]], random):
    samples = [sample(row[0], *row[1:], language="en", index=index) for index, row in enumerate(rows)]
    turned = [replace(each, references=tuple(random.sample(each.references, 2))) for each in samples]
    assert values(*turned) == pytest.approx(values(*samples))
