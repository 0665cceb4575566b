"""ROUGE is rouge-score's for English, and its formulas over the tokens of every other language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from lmtasks import Metric, Sample, Score
from lmtasks.errors import MetricError
from lmtasks.metrics import BUILTIN_METRICS, find_metrics, measure_samples, score_samples
from lmtasks.metrics.lcs import lcs_length, lcs_positions
from lmtasks.metrics.tokenize import sentences, tokens

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def sample(prediction: str, *references: str, language: str | None = None, index: int = 0, source: str = "") -> Sample:
    return Sample(
        index=index,
        id=str(index),
        inputs={"source": source} if source else {},
        references=references,
        language=language,
        prediction=prediction,
    )


def scores(samples: Sequence[Sample], metric: str = "rouge") -> dict[str, Score]:
    """By kind, of a set in one language. What is made in another way than usual has that in its name."""
    found = score_samples(samples, find_metrics([metric], no_plugin), resamples=0)
    setting = metric.removeprefix("rouge")
    assert [score.name for score in found] == [f"{kind}{setting}" for kind in KINDS]
    assert all(score.signature.startswith(f"{score.name}|") for score in found)
    return dict(zip(KINDS, found, strict=True))


def values(*samples: Sample) -> dict[str, float]:
    return {name: score.value for name, score in scores(samples).items()}


def no_plugin(name: str) -> Metric:
    raise AssertionError(f"asked a plugin for {name}")


# Against rouge-score


class Tokenizer:
    """What rouge-score takes as a tokenizer, from a function."""

    def __init__(self, tokenize: Callable[[str], list[str]]) -> None:
        self.tokenize = tokenize


def by_rouge_score(scorer: RougeScorer, prediction: str, reference: str) -> list[float]:
    """F-measures of KINDS; rouge-score takes the sentences of a text as its lines."""
    scored = scorer.score("\n".join(sentences(reference)), "\n".join(sentences(prediction)))
    return [scored[kind].fmeasure for kind in KINDS]


def assert_equals_rouge_score(
    scorer: RougeScorer, language: str, pairs: Sequence[tuple[str, str]], metric: str = "rouge"
) -> None:
    """Compare for each pair of a prediction and a reference, and for the corpus of them."""
    samples = [sample(*pair, language=language, index=index) for index, pair in enumerate(pairs)]
    expected = np.array([by_rouge_score(scorer, *pair) for pair in pairs])
    (measured,) = measure_samples(samples, [BUILTIN_METRICS[metric]])
    per_example = measured.measurement.statistics[:, : len(KINDS)]
    np.testing.assert_allclose(per_example, expected, rtol=0, atol=1e-9)
    means = [score.value for score in scores(samples, metric).values()]
    assert means == pytest.approx(list(100 * expected.mean(axis=0)), abs=1e-9)


PAIRS = {
    "en": [
        ("Running dogs chased the cats. Nobody cared.", "A dog ran after cats. No one cared about it."),
        ("The ferry leaves at nine. Bread costs two euros!", "Bread costs 2 euros. The ferries left at nine o'clock."),
        ("The ferry leaves at nine. Bread costs two euros!", "The ferry is late. Nobody knows why. Bread costs two!"),
        ("", "The boat was empty."),
        ("?!", "The boat was empty."),
        ("The boat was empty.", "..."),
        ("Nine boats left.", "The boats left the harbour. It was nine."),
        ("Bread is here. The ferry waits.", "The ferry brings bread."),
        # Clipping: tokens that stand in several sentences of either side.
        ("The ferry leaves. The ferry waits. The ferry.", "The ferry leaves the harbour. The ferry leaves at nine."),
        ("the the the the", "The cat. The dog. The."),
        ("Stemming generalises generalisations.", "Generalisation of stemmed words."),
        ("It isn't state-of-the-art, it costs €3.50.", "It is not state of the art; it costs 3.50 euros."),
        ("Die Fähre überquert den Öresund.", "Die Faehre ueberquert den Oeresund."),
        ("First line\nsecond line\n\nthird line", "Third line. Second line. First line."),
    ],
    "de": [
        ("Die Fähre verlässt den Hafen um neun. Brot kostet zwei Euro!", "Um neun verlässt die Fähre den Hafen."),
        ("Größere Äpfel. Größere Äpfel kosten mehr.", "Äpfel kosten mehr. Größere Äpfel kosten noch mehr."),
        ("Übel.", "Äpfel."),
        ("", "Niemand war an Bord."),
    ],
    "zh": [
        ("渡轮九点离开港口。面包两欧元！", "面包卖两欧元。九点渡轮离开港口。"),
        ("今天下雨。今天下雨。今天下雨。", "今天不下雨，明天下雨。"),
        ("他在Nexon工作了3年。", "他在 NEXON 公司工作三年。"),
        ("", "船上没有人。"),
        ("。", "船上没有人。"),
    ],
    "ja": [
        ("フェリーは九時に港を出ます。パンは高い！", "パンは高いです。九時にフェリーが港を出ます。"),
        ("雨が降る。雨が降る。", "今日は雨が降らない。"),
        ("", "船には誰もいませんでした。"),
    ],
}


@pytest.mark.parametrize("stem", [True, False], ids=["stemmed", "not stemmed"])
def test_rouge_of_english_equals_rouge_score(stem: bool):
    scorer = RougeScorer(KINDS, use_stemmer=stem)
    assert_equals_rouge_score(scorer, "en", PAIRS["en"], "rouge" if stem else "rouge:nostem")


@pytest.mark.parametrize("metric", ["rouge", "rouge:nostem"])
@pytest.mark.parametrize("language", ["de", "zh", "ja"])
def test_rouge_of_other_languages_uses_the_formulas_of_rouge_score(language: str, metric: str):
    assert_equals_rouge_score(RougeScorer(KINDS, tokenizer=Tokenizer(tokens)), language, PAIRS[language], metric)


# Few words, so that they come again within a sentence, in other sentences and in another order.
english_words = ["the", "The", "ferry", "ferries", "leaves", "leaving", "of", "bread", "generalised", "2", "o'clock"]
english_sentences = st.lists(st.sampled_from(english_words), min_size=1, max_size=9).map(" ".join)
english_texts = st.lists(
    st.tuples(english_sentences, st.sampled_from([". ", "! ", "? ", ".\n", "\n", " ", ", "])).map("".join), max_size=7
).map("".join)
unspaced_texts = st.lists(
    st.tuples(st.text("渡轮九点离开のはーab 2", max_size=9), st.sampled_from(["。", "！", "？", "\n", "，", "……"])).map(
        "".join
    ),
    max_size=6,
).map("".join)
german_words = st.sampled_from(["Die", "die", "Fähre", "fährt", "über", "Öl", "Äpfel", "groß", "größer", "um", "9"])
german_texts = st.lists(
    st.tuples(st.lists(german_words, min_size=1, max_size=8).map(" ".join), st.sampled_from([". ", "! ", "\n"])).map(
        "".join
    ),
    max_size=6,
).map("".join)


@pytest.mark.parametrize("stem", [True, False], ids=["stemmed", "not stemmed"])
@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(english_texts, english_texts.filter(str.strip)), min_size=1, max_size=3))
def test_rouge_of_english_equals_rouge_score_for_any_text(stem: bool, pairs: list[tuple[str, str]]):
    scorer = RougeScorer(KINDS, use_stemmer=stem)
    assert_equals_rouge_score(scorer, "en", pairs, "rouge" if stem else "rouge:nostem")


@pytest.mark.parametrize(("language", "texts"), [("de", german_texts), ("zh", unspaced_texts), ("ja", unspaced_texts)])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_rouge_of_any_text_in_other_languages_uses_the_same_formulas(
    language: str, texts: st.SearchStrategy[str], data: st.DataObject
):
    pairs = data.draw(st.lists(st.tuples(texts, texts.filter(str.strip)), min_size=1, max_size=3))
    assert_equals_rouge_score(RougeScorer(KINDS, tokenizer=Tokenizer(tokens)), language, pairs)


REFERENCES = [
    # A prediction and its references.
    (
        "Running dogs chased the cats. Nobody cared.",
        ["A dog ran after cats. No one cared about it."],
    ),
    (
        "The ferry leaves at nine. Bread costs two euros!",
        [
            "Bread costs 2 euros. The ferries left at nine o'clock.",
            "At nine the ferry leaves.",
            "The ferry is late. Nobody knows why. Bread costs two euros!",
        ],
    ),
    ("", ["The boat was empty.", "Nobody was on board."]),
    ("Stemming generalises generalisations.", ["Generalised stems.", "Generalisation of stemmed words."]),
    # Their ROUGE-Lsum would be lower with either side's sentences in one line.
    ("Nine boats left.", ["The boats left the harbour. It was nine."]),
    ("Bread is here. The ferry waits.", ["The ferry brings bread."]),
]


def several() -> list[Sample]:
    return [
        sample(prediction, *references, language="en", index=index)
        for index, (prediction, references) in enumerate(REFERENCES)
    ]


def test_rouge_uses_the_best_reference_for_each_variant():
    scorer = RougeScorer(KINDS, use_stemmer=True)
    best = [
        np.max([by_rouge_score(scorer, each.prediction, text) for text in each.references], 0) for each in several()
    ]
    found = scores(several())
    assert [score.value for score in found.values()] == pytest.approx(list(100 * np.mean(best, axis=0)), abs=1e-9)
    assert all("|nrefs:var|" in score.signature for score in found.values())


def test_rouge_golden_values():
    # rouge-score 0.1.2, RougeScorer(use_stemmer=True): the mean over REFERENCES of the best F-measure.
    golden = {"rouge1": 50.2114, "rouge2": 16.2037, "rougeL": 35.2763, "rougeLsum": 43.3066}
    assert values(*several()) == pytest.approx(golden, abs=5e-5)


def test_rouge_variants_may_use_different_references():
    words_alone, order_alone = "nine leaves ferry bread", "ferry leaves nine boats costs evening harbour"
    both = values(sample("ferry leaves nine bread", words_alone, order_alone, language="en"))
    singles = [values(sample("ferry leaves nine bread", text, language="en")) for text in (words_alone, order_alone)]
    assert both == pytest.approx({kind: max(single[kind] for single in singles) for kind in KINDS})
    assert both["rouge1"] == pytest.approx(100)
    assert both["rouge2"] > singles[0]["rouge2"]


# What is compared


def test_rouge_signature_states_how_texts_are_compared():
    samples = [sample("渡轮", "渡轮", language="zh")]
    assert all("|tok:lmtasks2|stem:no|split:lmtasks1|" in score.signature for score in scores(samples).values())
    samples = [sample("ferry", "ferry", language="en-GB")]
    for metric, stem in (("rouge", "porter"), ("rouge:nostem", "no")):
        for score in scores(samples, metric).values():
            assert f"|tok:rouge_score|stem:{stem}|split:lmtasks1|nrefs:1|agg:max|version:" in score.signature
            assert score.signature.endswith("|lang:en-GB")


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
def test_rouge_of_identical_texts_in_any_script_is_100(language: str, text: str, stated: bool):
    # rouge-score's own tokenizer keeps ASCII alone, and gives 0 to identical Japanese.
    found = values(sample(text, text, language=language if stated else None))
    assert found == pytest.approx(dict.fromkeys(KINDS, 100))


def test_rouge_of_identical_bengali_translations_is_100():
    text = "আমি বাংলা ভাষা ভালোবাসি"
    assert values(sample(text, text, source="I love the Bengali language"))["rouge1"] == pytest.approx(100)


def test_rouge_of_one_chinese_character_has_no_bigram():
    found = values(sample("港", "港", language="zh"))
    assert found == pytest.approx({"rouge1": 100, "rouge2": 0, "rougeL": 100, "rougeLsum": 100})


def test_rouge_of_chinese_counts_characters():
    # 3 of 4 characters in common, and of the 3 bigrams the first 2.
    found = values(sample("九点离开", "九点离港", language="zh"))
    assert found == pytest.approx({"rouge1": 75, "rouge2": 200 / 3, "rougeL": 75, "rougeLsum": 75})


@pytest.mark.parametrize(
    ("language", "prediction", "reference", "expected"),
    [
        ("de", "Die Äpfel", "Die Übel", 50),
        ("de", "schön", "schon", 0),
        ("de", "für", "f r", 0),
        ("hi", "की", "का", 0),
        # Only English is stemmed.
        ("en-GB", "boats", "boat", 100),
        ("nl", "boats", "boat", 0),
    ],
)
def test_rouge_keeps_marks_and_stems_only_english(language: str, prediction: str, reference: str, expected: float):
    assert values(sample(prediction, reference, language=language))["rouge1"] == pytest.approx(expected)


def test_rouge_nostem_does_not_stem_english():
    samples = [sample("leaving boats", "leaving boat", language="en")]
    assert scores(samples)["rouge1"].value == pytest.approx(100)
    assert scores(samples, "rouge:nostem")["rouge1"].value == pytest.approx(50)


def test_rouge_of_an_empty_prediction_is_0():
    good = sample("bread costs two euros", "bread costs two euros", language="en")
    empty = sample("", "the ferry leaves at nine", language="en", index=1)
    assert values(good, empty) == pytest.approx(dict.fromkeys(KINDS, 50))
    assert values(empty) == dict.fromkeys(KINDS, 0)
    assert {score.n for score in scores([good, empty]).values()} == {2}


# Sentences


def assert_lsum_ignores_the_order_of_sentences(language: str, first: str, second: str, joint: str) -> None:
    found = values(sample(first + joint + second, second + joint + first, language=language))
    assert found["rougeLsum"] == pytest.approx(100)
    assert 0 < found["rougeL"] < 90


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


# jieba


def test_rouge_jieba_is_refused_without_jieba(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr("lmtasks.metrics.packages.find_spec", asked.append)
    with pytest.raises(MetricError) as caught:
        find_metrics(["rouge", "rouge:jieba"], no_plugin)
    assert asked == ["jieba"]
    assert 'metric "rouge:jieba"' in str(caught.value)
    assert "pip install jieba" in str(caught.value)


@pytest.mark.parametrize("language", ["en", "ja", "de"])
def test_rouge_jieba_changes_only_chinese(language: str):
    # The metric itself: nothing of jieba is needed where no text is Chinese.
    samples = [sample("The boats left. 船は九時に出る。", "A boat left. 九時に船は出る。", language=language)]
    usual, asked = (score_samples(samples, [BUILTIN_METRICS[metric]]) for metric in ("rouge", "rouge:jieba"))
    for score, other in zip(usual, asked, strict=True):
        name = f"{score.name}:jieba"
        assert other == replace(score, name=name, signature=score.signature.replace(score.name, name, 1))


@pytest.mark.skipif(find_spec("jieba") is None, reason="jieba is not installed")
def test_rouge_jieba_compares_chinese_by_words():
    import jieba

    found = scores([sample("我来到北京清华大学。", "我离开北京大学。", language="zh-CN")], "rouge:jieba")
    # jieba's own example: 我/来到/北京/清华大学; the reference: 我/离开/北京大学. One word in common, of 4 and 3.
    assert found["rouge1"].value == pytest.approx(100 * 2 / 7)
    assert all("|tok:jieba-" in score.signature for score in found.values())

    def words(text: str) -> list[str]:
        return [word for word in jieba.lcut(text) if any(map(str.isalnum, word))]

    pairs = [
        ("渡轮九点离开港口。今天的面包两欧元！", "面包今天卖两欧元。九点钟渡轮离开港口。"),
        ("", "船上没有人。"),
        ("！", "船上没有人。"),
    ]
    assert_equals_rouge_score(RougeScorer(KINDS, tokenizer=Tokenizer(words)), "zh", pairs, "rouge:jieba")


# Every character


OUTPUTS_AND_SUMMARIES = [
    ("用户询问订单何时送达。客服答复预计3天内。", "用户询问订单什么时候能送到。客服表示预计2-3天送达。"),
    ("用户要退APP会员，客服已为其办理。", "用户希望退掉App会员。客服已办理退款，1-3个工作日到账。"),
    ("", "用户询问营业时间。客服告知每天9:00至18:00营业。"),
]


def ngram_f1(prediction: str, reference: str, n: int) -> float:
    """The formula that the papers share, 0 to 1, of texts as lists of characters."""
    left, right = (Counter(text[at : at + n] for at in range(len(text) - n + 1)) for text in (prediction, reference))
    return 2 * (left & right).total() / max(1, left.total() + right.total())


def test_rouge_char_golden_values():
    samples = [sample(*texts, language="zh", index=at) for at, texts in enumerate(OUTPUTS_AND_SUMMARIES)]
    found = {name: score.value for name, score in scores(samples, "rouge:char").items()}
    expected = [
        100 * np.mean([ngram_f1(output, summary, n) for output, summary in OUTPUTS_AND_SUMMARIES]) for n in (1, 2)
    ]
    assert [found["rouge1"], found["rouge2"]] == pytest.approx(expected, abs=1e-9)
    # By `ngram_f1` above, once; L and Lsum by rouge-score 0.1.2 with list as its tokenizer, lines broken behind "。".
    golden = {"rouge1": 41.6667, "rouge2": 23.1884, "rougeL": 38.8889, "rougeLsum": 40.2778}
    assert found == pytest.approx(golden, abs=5e-5)
    assert values(*samples)["rouge1"] != pytest.approx(found["rouge1"], abs=0.5)


@pytest.mark.parametrize("language", ["zh", "ja", "en", "de"])
def test_rouge_char_uses_the_formulas_of_rouge_score(language: str):
    scorer = RougeScorer(KINDS, tokenizer=Tokenizer(lambda text: list("".join(text.split()))))
    assert_equals_rouge_score(scorer, language, [pair for pairs in PAIRS.values() for pair in pairs], "rouge:char")


@pytest.mark.parametrize(
    ("prediction", "reference", "hits", "lengths"),
    # By hand: marks, digits and letters count, in their own case and width; white space does not.
    [
        ("九点。", "九点", 2, 5),
        ("！", "！", 1, 2),
        ("2024年", "2025年", 4, 10),
        ("App", "APP", 1, 6),
        ("ＡＢ", "AB", 0, 4),
        ("九 点\u3000开\n", "九点开", 3, 6),
        ("", "九", 0, 1),
    ],
)
def test_rouge_char_counts_punctuation_digits_and_letters(prediction: str, reference: str, hits: int, lengths: int):
    found = scores([sample(prediction, reference, language="zh")], "rouge:char")
    assert found["rouge1"].value == pytest.approx(100 * 2 * hits / lengths)


def test_rouge_char_has_its_signature_and_uses_the_best_reference():
    one, best = "九点开船。", "渡轮九点离开。"
    found = scores([sample("渡轮九点离开", one, best, language="zh")], "rouge:char")
    assert found["rouge1"].value == pytest.approx(100 * 12 / 13)
    assert found["rouge1"].signature.startswith("rouge1:char|tok:char|stem:no|split:lmtasks1|nrefs:2|agg:max|version:")


# Rules that hold for every text

some_english = st.lists(st.sampled_from(english_words), min_size=1, max_size=8).map(" ".join)
some_chinese = st.text("渡轮九点离开港口，。", max_size=8).map(lambda text: text + "渡")


@pytest.mark.parametrize(("language", "texts"), [("en", some_english), ("zh", some_chinese), ("de", german_texts)])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_rouge_of_an_emptied_prediction_is_not_higher(
    language: str, texts: st.SearchStrategy[str], data: st.DataObject
):
    wanted = texts.filter(str.strip)
    pairs = data.draw(st.lists(st.tuples(st.text(max_size=12) | texts, wanted), min_size=1, max_size=4))
    samples = [sample(*pair, language=language, index=index) for index, pair in enumerate(pairs)]
    place = data.draw(st.integers(0, len(samples) - 1))
    emptied = [*samples[:place], replace(samples[place], prediction=""), *samples[place + 1 :]]
    before, after = scores(samples), scores(emptied)
    for kind in KINDS:
        assert after[kind].value <= before[kind].value + 1e-9
        assert after[kind].n == len(samples)


@pytest.mark.parametrize("language", ["en", "zh", "de"])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_rouge_of_two_tokens_or_more_against_themselves_is_100(language: str, data: st.DataObject):
    two_or_more = {
        "en": english_texts.filter(lambda text: len(text.replace("\n", " ").split()) > 1),
        "zh": st.text("渡轮九点离开港口", min_size=2, max_size=20),
        "de": german_texts.filter(lambda text: len(tokens(text)) > 1),
    }[language]
    texts = data.draw(st.lists(two_or_more, min_size=1, max_size=3))
    found = values(*(sample(text, text, language=language, index=index) for index, text in enumerate(texts)))
    assert found == pytest.approx(dict.fromkeys(KINDS, 100))


# Longest common subsequences


def table(reference: Sequence[str], candidate: Sequence[str]) -> list[list[int]]:
    """Lengths for every pair of beginnings, as in any textbook."""
    lengths = [[0] * (len(candidate) + 1) for _ in range(len(reference) + 1)]
    for i, left in enumerate(reference):
        for j, right in enumerate(candidate):
            same = lengths[i][j] + 1 if left == right else 0
            lengths[i + 1][j + 1] = max(same, lengths[i][j + 1], lengths[i + 1][j])
    return lengths


def positions_by_table(reference: Sequence[str], candidate: Sequence[str]) -> list[int]:
    """Places in the reference, walked from the end: which of several is that of the docstring of lcs_positions."""
    lengths = table(reference, candidate)
    i, j = len(reference), len(candidate)
    found = []
    while i > 0 and j > 0:
        if reference[i - 1] == candidate[j - 1]:
            found.append(i - 1)
            i, j = i - 1, j - 1
        elif lengths[i][j - 1] > lengths[i - 1][j]:
            j -= 1
        else:
            i -= 1
    return found


sequences = st.lists(st.sampled_from("abcd"), max_size=24) | st.lists(st.sampled_from("ab"), min_size=60, max_size=90)


@settings(max_examples=150, deadline=None)
@given(sequences, sequences)
@example([], [])
@example(list("ab"), list("ba"))
def test_lcs_equals_a_plain_table(reference: list[str], candidate: list[str]):
    assert lcs_length(reference, candidate) == table(reference, candidate)[-1][-1]
    assert lcs_positions(reference, candidate) == positions_by_table(reference, candidate)


@settings(max_examples=80, deadline=None)
@given(sequences, sequences)
def test_lcs_positions_are_a_subsequence_of_full_length(reference: list[str], candidate: list[str]):
    places = lcs_positions(reference, candidate)
    assert places == sorted(set(places), reverse=True)
    assert len(places) == lcs_length(reference, candidate) == lcs_length(candidate, reference)
    rest = iter(candidate)
    assert all(reference[place] in rest for place in reversed(places))
