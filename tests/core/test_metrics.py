from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from lmtasks import Measurement, Metric, Sample, Score, ScoreKind
from lmtasks.errors import PluginError, UnknownNameError
from lmtasks.metrics import CORE, find_metrics, score_samples

ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
TOKENIZERS = {"en": "13a", "zh": "zh", "ja": "char", "ko": "char", "th": "char"}
NREFS = {"one": (1, 1, 1, 1), "three": (3, 3, 3, 3), "ragged": (3, 1, 2, 1)}
SIGNED_NREFS = {"one": "nrefs:1", "three": "nrefs:3", "ragged": "nrefs:var"}
# By language: predictions, one of them empty, and three references for each.
CORPORA = {
    "en": [
        (
            "The ferry leaves the harbour at nine.",
            "The ferry leaves the harbour at nine o'clock.",
            "At nine the ferry leaves the harbour.",
            "The boat leaves the harbour at nine.",
        ),
        (
            "It returns at six o'clock in the evening.",
            "It comes back at six o'clock in the evening.",
            "It returns at six in the evening.",
            "Its return is at six.",
        ),
        ("", "Nobody was on board.", "There was nobody on board.", "The boat was empty."),
        (
            "Bread costs two euros here!",
            "Bread costs two euros.",
            "Here bread costs two euros!",
            "A loaf is two euros here.",
        ),
    ],
    "zh": [
        ("渡轮九点离开港口。", "渡轮九点钟离开港口。", "九点渡轮离开港口。", "船九点离开港口。"),
        ("它晚上六点钟返回。", "它晚上六点回来。", "它在晚上六点钟返回。", "回程是六点。"),
        ("", "船上没有人。", "没有人在船上。", "船是空的。"),
        ("这里的面包两欧元！", "面包两欧元。", "这里的面包卖两欧元！", "一个面包两欧元。"),
    ],
    "ja": [
        (
            "フェリーは九時に港を出ます。",
            "フェリーは九時に港を出発します。",
            "九時にフェリーは港を出ます。",
            "船は九時に港を出ます。",
        ),
        ("夕方六時に戻ります。", "夕方の六時に戻ってきます。", "夕方六時に戻る。", "帰りは六時です。"),
        ("", "船には誰もいませんでした。", "誰も船にいなかった。", "船は空でした。"),
        (
            "ここのパンは二ユーロです。",
            "パンは二ユーロです。",
            "ここではパンが二ユーロです。",
            "パン一個で二ユーロ。",
        ),
    ],
    "ko": [
        (
            "페리는 아홉 시에 항구를 떠납니다.",
            "페리는 아홉 시에 항구를 출발합니다.",
            "아홉 시에 페리가 항구를 떠납니다.",
            "배는 아홉 시에 떠납니다.",
        ),
        (
            "저녁 여섯 시에 돌아옵니다.",
            "저녁 여섯 시에 다시 옵니다.",
            "여섯 시에 돌아옵니다.",
            "돌아오는 시간은 여섯 시입니다.",
        ),
        ("", "배에는 아무도 없었습니다.", "아무도 배에 없었습니다.", "배는 비어 있었습니다."),
        ("여기 빵은 2유로입니다.", "빵은 2유로입니다.", "여기서 빵은 2유로예요.", "빵 하나에 2유로입니다."),
    ],
    "th": [
        (
            "เรือออกจากท่าเวลาเก้าโมง",
            "เรือข้ามฟากออกจากท่าตอนเก้าโมง",
            "เวลาเก้าโมงเรือออกจากท่า",
            "เรือออกเก้าโมง",
        ),
        ("กลับมาตอนหกโมงเย็น", "เรือกลับมาเวลาหกโมงเย็น", "กลับมาตอนเย็นหกโมง", "กลับหกโมง"),
        ("", "ไม่มีใครอยู่บนเรือ", "บนเรือไม่มีใคร", "เรือว่าง"),
        ("ขนมปังที่นี่ราคาสองยูโร", "ขนมปังราคาสองยูโร", "ที่นี่ขนมปังราคาสองยูโร", "ขนมปังก้อนละสองยูโร"),
    ],
}
WORDS = ("ferry", "harbour", "leaves", "nine", "bread", "costs", "evening", "returns", "boats", "Nobody", "1943")


def sample(
    prediction: str, *references: str, language: str | None = None, index: int = 0, source: str = "", finish="stop"
) -> Sample:
    return Sample(
        index=index,
        id=str(index),
        inputs={"source": source} if source else {},
        references=references,
        language=language,
        prediction=prediction,
        finish=finish,
    )


def corpus(language: str, nrefs: str = "one") -> list[Sample]:
    return [
        sample(prediction, *references[:count], language=language, index=index)
        for index, ((prediction, *references), count) in enumerate(zip(CORPORA[language], NREFS[nrefs], strict=True))
    ]


def scores(samples: Sequence[Sample], *metrics: str | Metric) -> dict[str, Score]:
    """By name, of a set in one language."""
    found = score_samples(samples, find_metrics(metrics or CORE, no_plugin))
    named = {score.name: score for score in found}
    assert len(named) == len(found)
    return named


def value(name: str, *samples: Sample) -> float:
    return scores(samples)[name].value


def no_plugin(name: str) -> Metric:
    raise AssertionError(f"asked a plugin for {name}")


def total(measurement: Measurement) -> np.ndarray:
    return measurement.statistics.sum(axis=0)


def sacrebleu_metric(name: str, language: str) -> BLEU | CHRF:
    return BLEU(tokenize=TOKENIZERS[language], force=True) if name == "BLEU" else CHRF()


# BLEU and chrF


@pytest.mark.parametrize("nrefs", NREFS)
@pytest.mark.parametrize("language", CORPORA)
@pytest.mark.parametrize("name", ["BLEU", "chrF"])
def test_corpus_score_and_signature_are_those_of_sacrebleu(name: str, language: str, nrefs: str):
    samples = corpus(language, nrefs)
    theirs = sacrebleu_metric(name, language)
    streams = [list(texts) for texts in zip_longest(*(each.references for each in samples))]
    expected = theirs.corpus_score([each.prediction for each in samples], streams).score
    score = scores(samples, "bleu", "chrf")[name]
    assert score.value == pytest.approx(expected, abs=1e-9)
    assert score.signature == f"{name}|{theirs.get_signature()}|lang:{language}"
    assert SIGNED_NREFS[nrefs] in score.signature.split("|")
    assert name == "chrF" or f"tok:{TOKENIZERS[language]}" in score.signature.split("|")


# sacrebleu 2.6.0: BLEU(tokenize=..., force=True) and CHRF(), corpus_score over CORPORA, rounded to 4 digits.
GOLDEN = {
    ("en", "one"): (56.8209, 69.0616),
    ("en", "three"): (76.9370, 73.1138),
    ("en", "ragged"): (63.1725, 69.0616),
    ("zh", "one"): (50.1971, 40.0999),
    ("zh", "three"): (86.8874, 61.3484),
    ("zh", "ragged"): (58.7753, 48.8511),
    ("ja", "one"): (48.2435, 49.2487),
    ("ja", "three"): (72.1804, 58.2256),
    ("ja", "ragged"): (59.5129, 49.4795),
    ("ko", "one"): (53.5525, 52.0708),
    ("ko", "three"): (73.7563, 61.9248),
    ("ko", "ragged"): (65.4320, 52.0708),
    ("th", "one"): (47.8000, 46.2682),
    ("th", "three"): (80.1138, 64.1594),
    ("th", "ragged"): (63.3250, 58.6637),
}


@pytest.mark.parametrize(("language", "nrefs"), GOLDEN)
def test_bleu_and_chrf_keep_their_golden_values(language: str, nrefs: str):
    found = scores(corpus(language, nrefs), "bleu", "chrf")
    assert (found["BLEU"].value, found["chrF"].value) == pytest.approx(GOLDEN[language, nrefs], abs=5e-5)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("metric", CORE.values(), ids=CORE)
def test_statistics_of_a_split_corpus_add_up_to_the_whole(metric: Metric, language: str):
    exact = CORPORA[language][0][1]
    samples = [*corpus(language, "three"), sample(exact, exact, language=language, index=4)]
    whole, first, second = (metric.measure(part, language) for part in (samples, samples[:2], samples[2:]))
    expected = whole.combine(total(whole))
    assert len(expected) == len(whole.kinds)
    assert (expected > 0).all()
    assert whole.combine(total(first) + total(second)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", CORE.values(), ids=CORE)
def test_combine_takes_the_sums_of_many_resampled_corpora_at_once(metric: Metric):
    samples = corpus("en", "three")
    measurement = metric.measure(samples, "en")
    weights = np.array([[[1, 1, 1, 1], [2, 0, 1, 1]], [[0, 4, 0, 0], [1, 3, 0, 0]], [[0, 0, 2, 2], [1, 0, 0, 3]]])
    values = measurement.combine(weights @ measurement.statistics)
    assert values.shape == (3, 2, len(measurement.kinds))
    for place in np.ndindex(3, 2):
        drawn = [each for each, times in zip(samples, weights[place], strict=True) for _ in range(times)]
        again = metric.measure(drawn, "en")
        assert values[place] == pytest.approx(again.combine(total(again)))


def test_corpus_bleu_of_a_perfect_answer_of_three_words_is_0():
    # The surprise of the reference implementation: there is no 4-gram, and sacrebleu smooths none into being.
    short = sample("nine bread costs", "nine bread costs", language="en")
    assert BLEU().corpus_score([short.prediction], [list(short.references)]).score == 0
    assert value("BLEU", short) == 0
    assert value("BLEU", sample("nine bread costs two", "nine bread costs two", language="en")) == pytest.approx(100)


def test_the_reference_of_an_empty_prediction_still_counts():
    good = sample("bread costs two euros", "bread costs two euros", language="en")
    empty = sample("", "the ferry leaves at nine", language="en", index=1)
    together = scores([good, empty])
    # 4 words written where 9 were wanted: the brevity penalty exp(1 - 9 / 4), all precisions 1.
    assert together["BLEU"].value == pytest.approx(100 * np.exp(1 - 9 / 4))
    assert together["chrF"].value < 80
    for name in (*ROUGES, "exact_match", "f1"):
        assert together[name].value == pytest.approx(50)
    assert {score.n for score in together.values()} == {2}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_corpus_of_empty_predictions_scores_0(language: str):
    empty = [replace(each, prediction="") for each in corpus(language)]
    assert {name: score.value for name, score in scores(empty).items()} == dict.fromkeys(scores(corpus(language)), 0)


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [
        *((tag, "zh") for tag in ("zh", "ZH", "zh-CN", "zh_CN", "zh-Hant-TW")),
        *((tag, "char") for tag in ("ja", "ja-JP", "ko", "ko-KR", "th", "lo", "my", "km")),
        *((tag, "13a") for tag in ("en", "de", "fr-CA", "ru", "und-Latn")),
    ],
)
def test_the_primary_subtag_chooses_the_tokenizer_of_bleu(language: str, tokenizer: str):
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
def test_chinese_and_japanese_under_their_other_codes_are_not_scored_as_english(language: str, text: str):
    found = scores([sample(text, text, language=language)], "bleu", "exact_match")
    assert "tok:13a" not in found["BLEU"].signature
    assert "squad" not in found["exact_match"].signature
    assert found["BLEU"].value == pytest.approx(100)


# ROUGE

ENGLISH = [
    # Texts as sentences; a prediction and its references.
    (["Running dogs chased the cats.", "Nobody cared."], [["A dog ran after cats.", "No one cared about it."]]),
    (
        ["The ferry leaves at nine.", "Bread costs two euros!"],
        [
            ["Bread costs 2 euros.", "The ferries left at nine o'clock."],
            ["At nine the ferry leaves."],
            ["The ferry is late.", "Nobody knows why.", "Bread costs two euros!"],
        ],
    ),
    ([], [["The boat was empty."], ["Nobody was on board."]]),
    (["Stemming generalises generalisations."], [["Generalised stems."], ["Generalisation of stemmed words."]]),
    # Their ROUGE-Lsum would be lower with either side's sentences in one line.
    (["Nine boats left."], [["The boats left the harbour.", "It was nine."]]),
    (["Bread is here.", "The ferry waits."], [["The ferry brings bread."]]),
]


def english_samples() -> list[Sample]:
    return [
        sample(" ".join(prediction), *map(" ".join, references), language="en", index=index)
        for index, (prediction, references) in enumerate(ENGLISH)
    ]


def expected_rouge(kind: str) -> list[float]:
    scorer = RougeScorer([kind], use_stemmer=True)
    return [
        max(scorer.score("\n".join(reference), "\n".join(prediction))[kind].fmeasure for reference in references)
        for prediction, references in ENGLISH
    ]


@pytest.mark.parametrize("kind", ROUGES)
def test_english_rouge_is_that_of_rouge_score_for_each_example_and_the_corpus(kind: str):
    samples = english_samples()
    expected = expected_rouge(kind)
    assert [value(kind, each) / 100 for each in samples] == pytest.approx(expected)
    score = scores(samples)[kind]
    assert score.value == pytest.approx(100 * np.mean(expected))
    assert "|tok:rouge_score|stem:porter|" in score.signature
    assert "|nrefs:var|" in score.signature


def test_rouge_keeps_its_golden_values():
    # rouge-score 0.1.2, RougeScorer(use_stemmer=True): the mean over ENGLISH of the best F-measure.
    golden = {"rouge1": 50.2114, "rouge2": 16.2037, "rougeL": 35.2763, "rougeLsum": 43.3066}
    found = scores(english_samples(), "rouge")
    assert {kind: found[kind].value for kind in ROUGES} == pytest.approx(golden, abs=5e-5)


def test_each_kind_of_rouge_takes_its_own_best_reference():
    words_alone, order_alone = "nine leaves ferry bread", "ferry leaves nine boats costs evening harbour"
    both = scores([sample("ferry leaves nine bread", words_alone, order_alone, language="en")], "rouge")
    for kind in ROUGES:
        singles = [
            value(kind, sample("ferry leaves nine bread", text, language="en")) for text in (words_alone, order_alone)
        ]
        assert both[kind].value == pytest.approx(max(singles))
    assert both["rouge1"].value == pytest.approx(100)
    assert both["rouge2"].value > value("rouge2", sample("ferry leaves nine bread", words_alone, language="en"))


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("zh", "港口"),
        ("zh", "渡轮九点离开港口，六点返回。"),
        ("ja", "フェリーは九時に港を出ます。"),
        ("ko", "페리는 아홉 시에 떠납니다."),
        ("th", "เรือออกจากท่าเวลาเก้าโมง"),
        ("de", "Die Fähre überquert früh die Öresundbrücke."),
        ("ru", "Паром отходит в девять часов."),
        ("hi", "नौका नौ बजे बंदरगाह छोड़ती है।"),
        ("ar", "تغادر العبارة الميناء في الساعة التاسعة"),
    ],
)
@pytest.mark.parametrize("stated", [True, False], ids=["stated", "script"])
def test_identical_texts_in_any_script_score_100_on_every_rouge(language: str, text: str, stated: bool):
    found = scores([sample(text, text, language=language if stated else None)], "rouge")
    assert {kind: score.value for kind, score in found.items()} == pytest.approx(dict.fromkeys(ROUGES, 100))


def test_identical_bengali_translations_of_an_english_text_score_100_on_rouge():
    text = "আমি বাংলা ভাষা ভালোবাসি"
    assert value("rouge1", sample(text, text, source="I love the Bengali language")) == pytest.approx(100)


def test_one_chinese_character_has_no_bigram():
    found = scores([sample("港", "港", language="zh")], "rouge")
    assert [found[kind].value for kind in ROUGES] == pytest.approx([100, 0, 100, 100])


def test_chinese_rouge_counts_characters():
    # 3 of 4 characters in common, and of the 3 bigrams the first 2.
    found = scores([sample("九点离开", "九点离港", language="zh")], "rouge")
    assert [found[kind].value for kind in ROUGES] == pytest.approx([75, 200 / 3, 75, 75])
    assert all("|tok:lmtasks1|stem:no|" in score.signature for score in found.values())


def test_german_umlauts_are_letters():
    assert value("rouge1", sample("Die Äpfel", "Die Übel", language="de")) == pytest.approx(50)
    assert value("rouge1", sample("schön", "schon", language="de")) == 0
    assert value("rouge1", sample("für", "f r", language="de")) == 0


def test_vowel_signs_tell_hindi_words_apart():
    assert value("rouge1", sample("की", "का", language="hi")) == 0


def test_only_english_is_stemmed():
    assert value("rouge1", sample("boats", "boat", language="en-GB")) == pytest.approx(100)
    assert value("rouge1", sample("boats", "boat", language="nl")) == 0


def assert_lsum_ignores_the_order_of_sentences(language: str, first: str, second: str, joint: str) -> None:
    found = scores([sample(first + joint + second, second + joint + first, language=language)], "rouge")
    assert found["rougeLsum"].value == pytest.approx(100)
    assert 0 < found["rougeL"].value < 90


@pytest.mark.parametrize("joint", [" ", "\n"], ids=["space", "newline"])
@pytest.mark.parametrize(
    ("first", "second"),
    [("The ferry leaves.", "Bread costs more!"), ("Who returns at nine?", "Nobody in 1943.")],
)
def test_rouge_lsum_compares_english_sentence_by_sentence(first: str, second: str, joint: str):
    assert_lsum_ignores_the_order_of_sentences("en", first, second, joint)


@pytest.mark.parametrize("joint", ["", "\n", " ", "\u3000"], ids=["nothing", "newline", "space", "wide space"])
@pytest.mark.parametrize(
    ("language", "first", "second"),
    [
        ("zh", "渡轮离开。", "面包很贵。"),
        ("zh", "谁会返回！", "没有人在船上。"),
        ("zh", "渡轮几点离开？", "面包很贵！"),
        ("ja", "船が出ます。", "パンは高い！"),
    ],
)
def test_rouge_lsum_compares_chinese_and_japanese_sentence_by_sentence(
    language: str, first: str, second: str, joint: str
):
    assert_lsum_ignores_the_order_of_sentences(language, first, second, joint)


# Exact match and F1


@pytest.mark.parametrize(
    ("prediction", "references", "exact_match", "f1"),
    # Values of the official evaluation script of SQuAD 1.1 (evaluate-v1.1.py, its normalize_answer, f1_score and
    # metric_max_over_ground_truths), run once; times 100.
    [
        ("The Eiffel Tower.", ["eiffel tower"], 100, 100),
        ("Eiffel, Tower", ["Eiffel Tower"], 100, 100),
        ("AN ANSWER", ["answer"], 100, 100),
        ("a ferry", ["the ferry"], 100, 100),
        ("  the\ttower of\nthe harbour ", ["Tower of Harbour"], 100, 100),
        ("U.S.A.", ["USA"], 100, 100),
        ("another", ["other"], 0, 0),
        ("state-of-the-art", ["state of the art"], 0, 0),
        ("“Paris”", ["Paris"], 0, 0),
        ("Denver Broncos", ["The Denver Broncos", "Broncos"], 100, 100),
        ("Broncos of Denver", ["Denver Broncos", "the Broncos"], 0, 80),
        ("in 1943", ["1943", "the year 1943"], 0, 200 / 3),
        ("to be or not to be", ["be"], 0, 200 / 7),
        ("Santa Clara, California", ["Levi's Stadium", "Levi's Stadium in Santa Clara, California"], 0, 200 / 3),
        ("Paris", ["London"], 0, 0),
        ("", ["London"], 0, 0),
    ],
)
def test_english_answers_score_as_by_squad(prediction: str, references: list[str], exact_match: float, f1: float):
    found = scores([sample(prediction, *references, language="en")], "exact_match", "f1")
    assert found["exact_match"].value == exact_match
    assert found["f1"].value == pytest.approx(f1)


@pytest.mark.parametrize("prediction", ["A", "a", "A.", " (A) ", "**A**"])
def test_an_article_alone_is_an_answer_whatever_its_case_and_punctuation(prediction: str):
    # "Which vitamin?" Exact match of SQuAD's script gives 100; F1 is that of 2.0, where equal answers agree.
    found = scores([sample(prediction, "A", language="en")], "exact_match", "f1")
    assert [score.value for score in found.values()] == [100, 100]


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    # SQuAD 2.0's script: where either is without an answer, both scores are 1 if they agree, else 0.
    [
        ("", [""], 100),
        (".", [""], 100),
        ("nine", [""], 0),
        ("", ["", "nine"], 100),
        ("nine", ["", "nine"], 100),
        ("", ["nine"], 0),
    ],
)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_answer_is_right_only_where_a_reference_says_so(
    prediction: str, references: list[str], expected: float, language: str
):
    found = scores([sample(prediction, *references, language=language)], "exact_match", "f1")
    assert [score.value for score in found.values()] == [expected, expected]


@pytest.mark.parametrize(
    ("language", "prediction", "reference", "exact_match", "f1"),
    # By hand: tokens are characters, and runs of Latin letters or digits; F1 = 2 * common / (sum of both lengths).
    [
        ("zh", "《红楼梦》。", "红楼梦", 100, 100),
        ("zh", "北京", "北京市", 0, 80),
        ("zh", "京北", "北京", 0, 100),
        ("zh", "一九四三", "1943年", 0, 0),
        ("zh", "１９４３年", "1943年", 100, 100),
        ("zh", "在1943年", "1943 年", 0, 80),
        ("zh", "ＡＢＣ公司", "abc 公司", 100, 100),
        ("zh", "Ｎｅｘｏｎ！", "nexon", 100, 100),
        ("zh-TW", "臺北", "臺北市", 0, 80),
        ("ja", "ﾌｪﾘｰ", "フェリー", 100, 100),
        ("ja", "「東京」", "東京", 100, 100),
        ("th", "เก้า", "เก้าโมง", 0, 800 / 11),
    ],
)
def test_answers_in_unspaced_scripts_are_compared_by_character(
    language: str, prediction: str, reference: str, exact_match: float, f1: float
):
    found = scores([sample(prediction, reference, language=language)], "exact_match", "f1")
    assert found["exact_match"].value == exact_match
    assert found["f1"].value == pytest.approx(f1)
    assert found["f1"].signature == f"f1|norm:chars1|nrefs:1|agg:max|version:1|lang:{language}"


def test_spaced_languages_say_the_norm_of_squad():
    score = scores([sample("Größe", "größe", language="de")], "exact_match")["exact_match"]
    assert score.value == 100
    assert score.signature == "exact_match|norm:squad1.1|nrefs:1|agg:max|version:1|lang:de"


# Rules that hold for every text

english = st.lists(st.sampled_from(WORDS), min_size=4, max_size=12).map(" ".join)
chinese = st.text("渡轮九点离开港口返回今天面包", min_size=4, max_size=20)
some_english = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)
some_chinese = st.text("渡轮九点离开港口，。", min_size=0, max_size=8).map(lambda text: text + "渡")
MEANS = ("rouge", "exact_match", "f1")


def assert_emptying_never_improves(language: str, pairs: list[tuple[str, str]], place: int) -> None:
    samples = [sample(*pair, language=language, index=index) for index, pair in enumerate(pairs)]
    place %= len(samples)
    emptied = [*samples[:place], replace(samples[place], prediction=""), *samples[place + 1 :]]
    before, after = scores(samples, *MEANS), scores(emptied, *MEANS)
    for name in before:
        assert after[name].value <= before[name].value + 1e-9, name
        assert after[name].n == len(samples)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=12) | some_english, some_english), min_size=1, max_size=4), st.integers(0, 3)
)
def test_emptying_an_english_prediction_never_improves_means(pairs: list[tuple[str, str]], place: int):
    assert_emptying_never_improves("en", pairs, place)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=12) | some_chinese, some_chinese), min_size=1, max_size=4), st.integers(0, 3)
)
def test_emptying_a_chinese_prediction_never_improves_means(pairs: list[tuple[str, str]], place: int):
    assert_emptying_never_improves("zh", pairs, place)


@pytest.mark.parametrize(
    ("language", "prediction", "reference"),
    [("en", "B", "A"), ("en", "Abba", "The The"), ("en", "yes", "?"), ("zh", "逗号", "。")],
)
def test_emptying_never_improves_even_where_normalising_leaves_nothing_of_the_reference(
    language: str, prediction: str, reference: str
):
    assert_emptying_never_improves(language, [(prediction, reference)], 0)


@settings(max_examples=25, deadline=None)
@given(st.lists(english, min_size=1, max_size=3))
def test_english_texts_of_four_words_or_more_score_100_against_themselves(texts: list[str]):
    found = scores([sample(text, text, language="en", index=index) for index, text in enumerate(texts)])
    assert {name: score.value for name, score in found.items()} == pytest.approx(dict.fromkeys(found, 100))


@settings(max_examples=25, deadline=None)
@given(st.lists(chinese, min_size=1, max_size=3))
def test_chinese_texts_of_four_characters_or_more_score_100_against_themselves(texts: list[str]):
    found = scores([sample(text, text, language="zh", index=index) for index, text in enumerate(texts)])
    assert {name: score.value for name, score in found.items()} == pytest.approx(dict.fromkeys(found, 100))


POOL = [
    *(sample(each[0], *each[1:3]) for each in CORPORA["zh"]),
    *(sample(*each[:2]) for each in CORPORA["en"][:2]),
    sample("Die Fähre", "Die Fähre fährt", language="de"),
    sample("港口 1943", "1943"),
]


def by_signature(samples: Sequence[Sample]) -> dict[tuple[str, str], float]:
    renumbered = [replace(each, index=index) for index, each in enumerate(samples)]
    return {(score.name, score.signature): score.value for score in score_samples(renumbered, CORE.values())}


@settings(max_examples=15, deadline=None)
@given(st.permutations(POOL))
def test_scores_do_not_depend_on_the_order_of_examples(samples: list[Sample]):
    assert by_signature(samples) == pytest.approx(by_signature(POOL), abs=1e-9)


@pytest.mark.parametrize(
    "texts", [("여섯 시", "九点离港"), ("九点离港", "1943"), ("여섯 시", "九点离港", "다섯 시", "九点", "1943")]
)
def test_scores_do_not_depend_on_order_where_no_language_is_the_most_frequent(texts: tuple[str, ...]):
    samples = [sample(text[:2], text) for text in texts]
    assert by_signature(samples[::-1]) == pytest.approx(by_signature(samples), abs=1e-9)


@pytest.mark.parametrize("nrefs", NREFS)
@pytest.mark.parametrize("language", CORPORA)
def test_every_score_says_how_it_was_made(language: str, nrefs: str):
    found = scores(corpus(language, nrefs))
    assert set(found) == {"BLEU", "chrF", *ROUGES, "exact_match", "f1"}
    for name, score in found.items():
        parts = score.signature.split("|")
        assert parts[0] == name
        assert parts[-1] == f"lang:{language}"
        assert SIGNED_NREFS[nrefs] in parts
        assert any(part.startswith("version:") for part in parts)
        assert (score.unit, score.n, score.language, score.higher_is_better) == ("0-100", 4, language, True)
        assert 0 <= score.value <= 100


# score_samples and find_metrics


def test_a_mixed_set_has_a_score_for_each_language_the_largest_first():
    samples = [
        sample("nine ferries", "nine ferries", index=0),
        sample("九点离开", "九点离开", index=1),
        sample("六点返回", "五点返回", index=2),
        sample("九時に出ます", "船は九時に出る", index=3),
        sample("九点", "九点离开港口", index=4),
        sample("boats", "ferry", index=5),
    ]
    found = score_samples(samples, [CORE["f1"]])
    assert [(score.language, score.n) for score in found] == [("zh", 3), ("en", 2), ("ja", 1)]
    assert [score.value for score in found[:2]] == pytest.approx([(100 + 75 + 50) / 3, 50])


def test_the_order_of_metrics_is_kept_within_a_language():
    found = score_samples(corpus("en"), find_metrics(["f1", "chrf", "bleu"], no_plugin))
    assert [score.name for score in found] == ["f1", "chrF", "BLEU"]


def test_the_signature_tells_a_stated_language_from_one_read_from_the_script():
    stated = scores([sample("九点", "九点", language="zh")])
    read = scores([sample("九点", "九点")])
    for name in stated:
        assert stated[name].signature.endswith("|lang:zh")
        assert read[name].signature == stated[name].signature + "(script)"
        assert stated[name].language == read[name].language == "zh"


def test_stated_and_read_languages_never_share_a_score():
    found = score_samples(
        [sample("九点", "九点", language="zh"), sample("六点", "五点", index=1)], [CORE["exact_match"]]
    )
    assert {(score.signature.rpartition("|")[2], score.value, score.n) for score in found} == {
        ("lang:zh", 100, 1),
        ("lang:zh(script)", 0, 1),
    }


def test_the_language_is_read_from_references_never_from_predictions():
    assert scores([sample("the ferry leaves", "渡轮离开")])["BLEU"].language == "zh"


def test_text_without_any_letter_is_scored_in_an_unknown_language():
    score = scores([sample("1943", "1943")])["exact_match"]
    assert score.language is None
    assert score.signature.endswith("|lang:unknown(script)")
    assert score.value == 100


def test_skipped_samples_and_those_without_references_are_left_out():
    samples = [
        sample("nine", "nine", language="en"),
        sample("", "ferry", language="en", index=1, finish="skipped"),
        sample("bread", language="en", index=2),
        sample("boats", "bread", language="en", index=3, finish="length"),
    ]
    score = scores(samples)["exact_match"]
    assert (score.value, score.n) == (50, 2)
    assert "|nrefs:1|" in score.signature


def test_a_set_with_nothing_to_score_has_no_scores():
    assert score_samples([], CORE.values()) == []
    assert score_samples([sample("x"), sample("", "x", finish="skipped")], CORE.values()) == []


def test_metrics_may_come_from_a_generator():
    samples = [sample("nine", "nine", language="en"), sample("九点", "九点", language="zh", index=1)]
    assert len(score_samples(samples, (CORE[name] for name in ("f1", "exact_match")))) == 4


@dataclass(frozen=True)
class LengthRatio:
    """What a plugin may bring: characters written for each wanted one."""

    name: str = "length_ratio"

    def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
        lengths = [[len(each.prediction), len(each.references[0])] for each in samples]
        kind = ScoreKind(name=self.name, signature=f"ratio|of:{language}", unit="ratio", higher_is_better=False)
        return Measurement(
            statistics=np.array(lengths, dtype=float),
            kinds=(kind,),
            combine=lambda sums: sums[..., :1] / sums[..., 1:],
        )


def test_a_metric_of_a_plugin_is_scored_like_those_of_core():
    metric = LengthRatio()
    assert isinstance(metric, Metric)
    found = score_samples([sample("four", "eight888", language="en"), sample("", "four", language="en")], [metric])
    assert found == [
        Score(
            name="length_ratio",
            value=4 / 12,
            unit="ratio",
            signature="ratio|of:en|lang:en",
            higher_is_better=False,
            language="en",
            n=2,
        )
    ]


def raise_error(*_: object) -> Measurement:
    raise KeyError("weights")


def too_many_values(measurement: Measurement) -> Measurement:
    return replace(measurement, combine=lambda sums: np.zeros(3))


def failing_combine(measurement: Measurement) -> Measurement:
    return replace(measurement, combine=raise_error)


@pytest.mark.parametrize("spoil", [raise_error, lambda _: None, failing_combine, too_many_values])
def test_a_failing_metric_is_named(spoil):
    class Broken(LengthRatio):
        def measure(self, samples: Sequence[Sample], language: str | None) -> Measurement:
            return spoil(super().measure(samples, language))

    with pytest.raises(PluginError, match='metric "broken"') as caught:
        score_samples([sample("x", "x", language="en")], [Broken("broken")])
    assert caught.value.__cause__ is not None
    assert type(caught.value.__cause__).__name__ in str(caught.value)


def test_find_metrics_takes_names_of_core_names_of_plugins_and_metrics():
    asked = []

    def from_plugin(name: str) -> Metric:
        asked.append(name)
        return LengthRatio("from plugin")

    mine = LengthRatio("mine")
    found = find_metrics(["bleu", "lengths/ratio", mine, "rouge"], from_plugin)
    assert [metric.name for metric in found] == ["bleu", "from plugin", "mine", "rouge"]
    assert found[2] is mine
    assert asked == ["lengths/ratio"]


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("rogue", "Did you mean rouge?"),
        ("BLEU", "bleu"),
        ("exactmatch", "exact_match"),
        ("xyzxyz", "Known: bleu, chrf"),
    ],
)
def test_an_unknown_metric_is_answered_with_the_nearest(name: str, offered: str):
    with pytest.raises(UnknownNameError) as caught:
        find_metrics(["bleu", name], no_plugin)
    assert f'no metric is called "{name}"' in str(caught.value)
    assert offered in str(caught.value)


def test_core_metrics_are_metrics_under_their_own_names():
    assert set(CORE) == {"bleu", "chrf", "rouge", "exact_match", "f1"}
    for name, metric in CORE.items():
        assert isinstance(metric, Metric)
        assert metric.name == name


@pytest.mark.parametrize("language", CORPORA)
def test_scoring_needs_no_network(language: str, monkeypatch: pytest.MonkeyPatch):
    tried = []

    def refuse(*arguments: object, **_: object) -> None:
        tried.append(arguments)
        raise OSError("a metric went to the network")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    assert len(scores(corpus(language, "ragged"))) == 8
    assert tried == []
