"""Exact match and F1: SQuAD's definitions, CMRC 2018's for Chinese, characters for other unspaced languages.

The definitions are written down here a second time, in the plainest way and from their description, and compared with
over texts that are made to be difficult.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.tokenize import word_tokenize

from lmtasks import Metric, Sample, Score
from lmtasks.metrics import find_metrics, score_samples

Compare = Callable[[str, str], float]


def sample(prediction: str, *references: str, language: str | None = None, index: int = 0) -> Sample:
    return Sample(
        index=index, id=str(index), inputs={}, references=references, language=language, prediction=prediction
    )


def scores(samples: Sequence[Sample]) -> dict[str, Score]:
    """By name, of a set in one language."""
    found = score_samples(samples, find_metrics(["exact_match", "f1"], no_plugin), resamples=0)
    named = {score.name: score for score in found}
    assert len(named) == len(found)
    return named


def values(*samples: Sample) -> tuple[float, float]:
    """Exact match and F1."""
    found = scores(samples)
    return found["exact_match"].value, found["f1"].value


def numbered(rows: Sequence[tuple[str, Sequence[str]]], language: str) -> list[Sample]:
    return [sample(row[0], *row[1], language=language, index=index) for index, row in enumerate(rows)]


def no_plugin(name: str) -> Metric:
    raise AssertionError(f"asked a plugin for {name}")


# The definitions, once more


def squad_words(text: str) -> list[str]:
    """Rajpurkar et al. 2016, section 6.1: without articles and punctuation; the script says ASCII ones, first."""
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    runs = re.findall(r"\w+|\W+", kept)
    return "".join(" " if run in ("a", "an", "the") else run for run in runs).split()


def harmonic(common: float, predicted: int, wanted: int) -> float:
    if not common:
        return 0.0
    precision, recall = common / predicted, common / wanted
    return 2 / (1 / precision + 1 / recall)


def shared(predicted: list[str], wanted: list[str]) -> int:
    """How many tokens both have, each as often as the rarer side has it."""
    left = list(wanted)
    count = 0
    for word in predicted:
        if word in left:
            left.remove(word)
            count += 1
    return count


def squad_exact(prediction: str, reference: str) -> float:
    return float(squad_words(prediction) == squad_words(reference))


def squad1_f1(prediction: str, reference: str) -> float:
    predicted, wanted = squad_words(prediction), squad_words(reference)
    return harmonic(shared(predicted, wanted), len(predicted), len(wanted))


def squad2_f1(prediction: str, reference: str) -> float:
    """Rajpurkar et al. 2018's script: where either has no words, 1 if neither has."""
    predicted, wanted = squad_words(prediction), squad_words(reference)
    if not predicted or not wanted:
        return float(predicted == wanted)
    return squad1_f1(prediction, reference)


def best(compare: Compare, prediction: str, references: Sequence[str]) -> float:
    return max(compare(prediction, text) for text in references)


def best_of_answers(compare: Compare, prediction: str, references: Sequence[str]) -> float:
    """As SQuAD 2.0: an answer without words is none, and where there is none, silence is right."""
    return best(compare, prediction, [text for text in references if squad_words(text)] or [""])


CMRC_MARKS = set("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
"""CMRC 2018's list as its script has it; "……" stands there too, as a pair that no single character equals."""


def cmrc_plain(text: str) -> str:
    return "".join(character for character in text.lower().strip() if character not in CMRC_MARKS)


def cmrc_exact(prediction: str, reference: str) -> float:
    return float(cmrc_plain(prediction) == cmrc_plain(reference))


def cmrc_segments(text: str) -> list[str]:
    """Chinese characters alone, what stands between them as NLTK's words: Cui et al. 2019, section 4.2."""
    segments: list[str] = []
    for part in re.split("([\u4e00-\u9fa5])", cmrc_plain(text)):
        segments += [part] if re.fullmatch("[\u4e00-\u9fa5]", part) else word_tokenize(part, preserve_line=True)
    return segments


def cmrc_f1(prediction: str, reference: str) -> float:
    predicted, wanted = cmrc_segments(prediction), cmrc_segments(reference)
    for length in range(min(len(predicted), len(wanted)), 0, -1):
        runs = {tuple(wanted[at : at + length]) for at in range(len(wanted) - length + 1)}
        if any(tuple(predicted[at : at + length]) in runs for at in range(len(predicted) - length + 1)):
            return harmonic(length, len(predicted), len(wanted))
    return 0.0


def assert_defined_by(
    exact: Compare, f1: Compare, pick: Callable[..., float], rows: Sequence[tuple[str, Sequence[str]]], language: str
) -> None:
    """Compare the means over rows of a prediction and its references."""
    expected = [[pick(compare, *row) for row in rows] for compare in (exact, f1)]
    assert values(*numbered(rows, language)) == pytest.approx(tuple(100 * np.mean(expected, axis=1)), abs=1e-9)


ENGLISH = [
    ("The Eiffel Tower.", ["eiffel tower", "the tower of Eiffel"]),
    ("in 1943, at noon", ["1943", "noon in 1943"]),
    ("to be or not to be", ["be", "not be to"]),
    ("An an the THE", ["a"]),
    ("“the” answer", ["answer", "“” answer"]),
    ("state-of-the-art", ["state of the art", "stateoftheart"]),
    ("theatre", ["the atre", "theatre"]),
    ("It's 3.50 €!", ["its 350 €", "3.50"]),
    ("U.S.A.", ["USA", "U S A"]),
    ("", ["nobody"]),
    ("?", ["nobody", "!"]),
    ("naïve café", ["naive cafe", "café naïve"]),
    ("a_b the_c", ["ab thec", "ab c"]),
]
pieces = ["a", "an", "the", "The", "THE", "ferry", "Ferry", "1943", "of", ".", ",", "-", "'", "“", "”", "é", "_", " "]
answers = st.lists(st.sampled_from([*pieces, " ", "  ", "\t", " "]), max_size=10).map("".join)
references = st.lists(answers, min_size=1, max_size=3)


def test_answers_in_english_are_scored_like_squad_1_1():
    assert_defined_by(squad_exact, squad1_f1, best, ENGLISH, "en")
    assert all("|norm:squad1.1|" in score.signature for score in scores(numbered(ENGLISH, "en")).values())


@pytest.mark.parametrize("language", ["en", "de", "ko", "und-Latn"])
@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(answers, references.filter(any)), min_size=1, max_size=4))
def test_any_answer_is_scored_like_squad_1_1(language: str, rows: list[tuple[str, list[str]]]):
    assert_defined_by(squad_exact, squad1_f1, best, rows, language)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(answers, references), min_size=1, max_size=4), answers)
def test_any_answer_is_scored_like_squad_2_if_a_question_has_none(rows: list[tuple[str, list[str]]], silent: str):
    rows = [*rows, (silent, [""])]
    assert_defined_by(squad_exact, squad2_f1, best_of_answers, rows, "en")
    found = scores(numbered(rows, "en"))
    assert all("|norm:squad2.0|" in score.signature for score in found.values())
    for name, wanted in (("HasAns", True), ("NoAns", False)):
        part = [row for row in rows if any(row[1]) is wanted]
        assert (f"{name}_f1" in found) == bool(part)
        for label, compare in (("exact", squad_exact), ("f1", squad2_f1)):
            if part:
                expected = 100 * np.mean([best_of_answers(compare, *row) for row in part])
                assert found[f"{name}_{label}"].value == pytest.approx(expected, abs=1e-9)
                assert found[f"{name}_{label}"].n == len(part)


CHINESE = [
    ("《红楼梦》。", ["红楼梦"]),
    ("京北", ["北京", "京"]),
    ("范廷颂是枢机", ["范廷颂枢机（1919年）"]),
    ("他在New York住了3年。", ["在 New York 住了 3.5 年", "new york"]),
    ("１９４３年", ["1943年"]),
    ("don't", ["do n't", "dont"]),
    ("不知道……", ["不知道"]),
    ("‘北京’", ["北京"]),
    ("3.5米。", ["3.5 米"]),
    ("", ["没有人"]),
    ("。", ["没有人", "，"]),
]
chinese_pieces = [
    *"渡轮九点离开港口，。《》…‘’ ",
    "1943",
    "3.5",
    "Nexon",
    "don't",
    "$",
    "%",
    "龦",
    "𠮷",
    "(",
    "-",
    "Ａ",
]
chinese_answers = st.lists(st.sampled_from(chinese_pieces), max_size=10).map("".join)


def test_answers_in_chinese_are_scored_like_cmrc_2018():
    assert_defined_by(cmrc_exact, cmrc_f1, best, CHINESE, "zh")
    assert all("|norm:cmrc2018|" in score.signature for score in scores(numbered(CHINESE, "zh")).values())


@settings(max_examples=120, deadline=None)
@given(
    st.lists(
        st.tuples(chinese_answers, st.lists(chinese_answers, min_size=1, max_size=3).filter(any)),
        min_size=1,
        max_size=4,
    )
)
def test_any_chinese_answer_is_scored_like_cmrc_2018(rows: list[tuple[str, list[str]]]):
    assert_defined_by(cmrc_exact, cmrc_f1, best, rows, "zh")


# Golden values


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
def test_squad_1_1_golden_values(prediction: str, references: list[str], exact_match: float, f1: float):
    assert values(sample(prediction, *references, language="en")) == pytest.approx((exact_match, f1))


def test_squad_2_golden_values():
    # The scoring functions of the official evaluation script of SQuAD 2.0 (evaluate-v2.0.py, as copies of it on GitHub
    # have them), retyped and run once on these rows, "no answer" being an empty list there.
    rows = [
        ("Normans", ["Normans", "the Normans"]),
        ("in the 10th century", ["10th and 11th centuries"]),
        ("", [""]),
        ("Norse", [""]),
        ("", ["King Charles III"]),
        ("the", [""]),
        ("A", ["A", "the"]),
        ("yes", ["the"]),
        ("", ["?"]),
        ("U.S.", ["US", ""]),
        ("", ["", "nine"]),
    ]
    found = scores(numbered(rows, "en"))
    assert {name: (score.value, score.n) for name, score in found.items()} == {
        "exact_match": (pytest.approx(54.5454545454), 11),
        "f1": (pytest.approx(57.1428571429), 11),
        "HasAns_exact": (pytest.approx(50), 8),
        "HasAns_f1": (pytest.approx(53.5714285714), 8),
        "NoAns_exact": (pytest.approx(66.6666666667), 3),
        "NoAns_f1": (pytest.approx(66.6666666667), 3),
    }


@pytest.mark.parametrize(
    ("prediction", "reference", "exact_match", "f1"),
    # Values of the official evaluation script of CMRC 2018 (squad-style-data/cmrc2018_evaluate.py, "v5 - special", its
    # calc_em_score and calc_f1_score), run once, times 100. It was made to run under Python 3, and word_tokenize was
    # called with preserve_line=True, because NLTK's sentence model would have to be downloaded.
    [
        ("《红楼梦》。", "红楼梦", 100, 100),
        ("北京", "北京市", 0, 80),
        ("臺北", "臺北市", 0, 80),
        # One run alone counts, so order does.
        ("京北", "北京", 0, 50),
        ("范廷颂是枢机", "范廷颂枢机", 0, 600 / 11),
        ("1990年被擢升为河内总教区署理", "1990年被擢升为天主教河内总教区宗座署理", 0, 1200 / 31),
        ("一九四三", "1943年", 0, 0),
        # Width is not made equal, and space within counts for exact match.
        ("１９４３年", "1943年", 0, 50),
        ("ＡＢＣ公司", "abc 公司", 0, 200 / 3),
        ("1943 年", "1943年", 0, 100),
        ("new york市", "New York 市", 0, 100),
        ("《 北京 》", "北京", 0, 100),
        (" 北京 ", "《北京》", 100, 100),
        ("在2018年3月5日", "2018年3月", 0, 800 / 11),
        ("3.5米。", "3.5米", 100, 100),
        # Neither dots of omission nor an opening single quotation mark are in the list.
        ("不知道", "不知道……", 0, 600 / 7),
        ("北京", "‘北京’", 0, 80),
        ("a b", "A。 B", 100, 100),
        ("ab", "a-b", 100, 100),
        ("dont", "don't", 0, 0),
        # Beyond the first plane, but a segment for itself all the same.
        ("吉野家", "𠮷野家", 0, 200 / 3),
    ],
)
def test_cmrc_2018_golden_values(prediction: str, reference: str, exact_match: float, f1: float):
    assert values(sample(prediction, reference, language="zh")) == pytest.approx((exact_match, f1))


@pytest.mark.parametrize(
    ("language", "prediction", "reference", "exact_match", "f1"),
    # By hand: tokens are characters, and runs of Latin letters or digits; F1 = 2 * common / (sum of both lengths).
    [
        ("ja", "東京", "東京都", 0, 80),
        ("ja", "京東", "東京", 0, 100),
        ("ja", "１９４３年", "1943年", 100, 100),
        ("ja", "1943 年に", "1943年", 0, 80),
        ("ja", "ﾌｪﾘｰ", "フェリー", 100, 100),
        ("ja-JP", "「東京」。", "東京", 100, 100),
        ("ja", "ＡＢＣ社", "abc 社", 100, 100),
        ("th", "เก้า", "เก้าโมง", 0, 800 / 11),
        # A text of marks alone is compared with its marks, or nothing at all would equal it.
        ("ja", "？", "？", 100, 100),
        ("ja", "！", "？", 0, 0),
        ("ja", "", "？", 0, 0),
    ],
)
def test_answers_in_other_unspaced_scripts_are_compared_by_character(
    language: str, prediction: str, reference: str, exact_match: float, f1: float
):
    found = scores([sample(prediction, reference, language=language)])
    assert (found["exact_match"].value, found["f1"].value) == pytest.approx((exact_match, f1))
    assert found["f1"].signature == f"f1|norm:chars2|nrefs:1|agg:max|version:1|lang:{language}"


# Which definition


@pytest.mark.parametrize(
    ("language", "text", "norm"),
    [
        *((tag, "a", "squad1.1") for tag in ("en", "de", "ko", "ru", "hi", "ar", "und-Latn", "en-GB", "th")),
        *((tag, "a", "cmrc2018") for tag in ("zh", "zh-TW", "zh_CN", "cmn-Hans", "yue", "zho_Hans")),
        *((tag, "a", "chars2") for tag in ("ja", "jpn_Jpan")),
        ("th", "เก้า", "chars2"),
        ("lo", "ເກົ້າ", "chars2"),
        ("my", "ကိုး", "chars2"),
        ("km", "ប្រាំបួន", "chars2"),
        ("shn_Mymr", "ၵဝ်ႈ", "chars2"),
        ("bo", "དགུ", "chars2"),
        ("ko", "九點", "squad1.1"),
    ],
)
def test_definition_depends_on_language_and_script(language: str, text: str, norm: str):
    found = scores([sample(text, text, language=language)])
    for name, score in found.items():
        assert score.signature == f"{name}|norm:{norm}|nrefs:1|agg:max|version:1|lang:{language}"
        assert (score.unit, score.higher_is_better, score.n) == ("0-100", True, 1)


def test_answers_in_german_are_compared_in_lower_case_with_umlauts():
    assert values(sample("Größe", "größe", language="de")) == (100, 100)
    assert values(sample("Grösse", "Größe", language="de")) == (0, 0)


@pytest.mark.parametrize("prediction", ["A", "a", "A.", " (A) ", "**A**", "", "The"])
def test_squad_ignores_an_article_alone(prediction: str):
    # "Which vitamin?" Both normalise to nothing: the official script of 1.1 gives exact match, and F1 0 for want of a
    # common word; that of 2.0 gives both.
    vitamin = sample(prediction, "A", language="en")
    assert values(vitamin) == (100, 0)
    unanswerable = sample("nine", "", language="en", index=1)
    assert values(vitamin, unanswerable) == (50, 50)


def test_squad_answer_is_wrong_if_the_reference_is_an_article():
    assert values(sample("B", "A", language="en")) == (0, 0)


@pytest.mark.parametrize(
    ("language", "prediction", "references", "expected"),
    # Where an example's references are all "": right is what says nothing, as the definition sees it.
    [
        ("en", "", [""], 100),
        ("en", " \n", [""], 100),
        ("en", ".", [""], 100),
        ("en", "the", ["", ""], 100),
        ("en", "nine", [""], 0),
        ("en", "\u200b", [""], 100),
        ("en", "\u3164 \u2800", ["", ""], 100),
        ("zh", "", [""], 100),
        ("zh", "。", ["", ""], 100),
        ("zh", "九点", [""], 0),
        ("zh", "\u200b", [""], 100),
        ("ja", "", [""], 100),
        ("ja", "\u3000", [""], 100),
        ("ja", "\u200b\ufeff", [""], 100),
        ("ja", "九時", [""], 0),
        ("ja", "なし。", [""], 0),
    ],
)
def test_no_answer_is_right_if_all_references_are_empty(
    language: str, prediction: str, references: list[str], expected: float
):
    found = scores([sample(prediction, *references, language=language)])
    assert {name: score.value for name, score in found.items()} == dict.fromkeys(
        ("exact_match", "NoAns_exact", "f1", "NoAns_f1"), expected
    )


def test_no_answer_among_references_counts_as_in_each_script():
    silent = sample("", "", "nine", language="en")
    # 1.1 takes "" for a reference like any other, and F1 wants a common word; 2.0 drops it.
    assert values(silent) == (100, 0)
    assert values(silent, sample("bread", "", language="en", index=1)) == (0, 0)
    # CMRC 2018 too: equal, without a common run.
    assert values(sample("", "", "九点", language="zh")) == (100, 0)


@pytest.mark.parametrize("language", ["ja", "th"])
def test_f1_is_at_least_exact_match_for_character_definition(language: str):
    exact_match, f1 = values(sample("", "", "九時", language=language))
    assert f1 >= exact_match


def test_parts_have_scores_only_with_unanswerable_questions():
    answered = sample("nine", "nine", language="en")
    silent = sample("", "", language="en", index=1)
    assert list(scores([answered])) == ["exact_match", "f1"]
    assert list(scores([silent])) == ["exact_match", "NoAns_exact", "f1", "NoAns_f1"]
    found = scores([answered, silent])
    assert list(found) == ["exact_match", "HasAns_exact", "NoAns_exact", "f1", "HasAns_f1", "NoAns_f1"]
    for name, score in found.items():
        assert score.signature == f"{name}|norm:squad2.0|nrefs:1|agg:max|version:1|lang:en"


def test_definition_is_chosen_for_each_language():
    samples = [sample("the", "the", language="en"), sample("", "", language="ja", index=1)]
    found = score_samples(samples, find_metrics(["f1"], no_plugin), resamples=0)
    assert [(score.name, score.language, score.value) for score in found] == [
        ("f1", "en", 0),
        ("f1", "ja", 100),
        ("NoAns_f1", "ja", 100),
    ]


def test_answers_use_the_best_reference_for_each_score():
    assert values(sample("nine boats", "boats", "nine", "the nine boats", language="en")) == (100, 100)
    assert values(sample("九点钟", "九点", "六点", language="zh")) == pytest.approx((0, 80))
    found = scores([sample("a", "a", "b", language="en"), sample("a", "a", language="en", index=1)])
    assert "|nrefs:var|" in found["f1"].signature


def test_empty_prediction_counts_as_wrong():
    good = sample("bread costs two euros", "bread costs two euros", language="en")
    empty = sample("", "the ferry leaves at nine", language="en", index=1)
    found = scores([good, empty])
    assert [(score.value, score.n) for score in found.values()] == [(50, 2), (50, 2)]


# Rules that hold for every text


def assert_emptying_never_improves(language: str, rows: list[tuple[str, str]], place: int) -> None:
    samples = [sample(*row, language=language, index=index) for index, row in enumerate(rows)]
    place %= len(samples)
    emptied = [*samples[:place], replace(samples[place], prediction=""), *samples[place + 1 :]]
    before, after = scores(samples), scores(emptied)
    assert list(before) == list(after)
    for name in before:
        assert after[name].value <= before[name].value + 1e-9, name
        assert after[name].n == before[name].n


def some_words(language: str) -> st.SearchStrategy[str]:
    """References with a token at least after normalisation."""
    return {
        "en": answers.filter(squad_words),
        "zh": chinese_answers.filter(cmrc_segments),
        "ja": chinese_answers.filter(str.strip),
    }[language]


@pytest.mark.parametrize("unanswerable", [False, True], ids=["answers", "some without"])
@pytest.mark.parametrize("language", ["en", "zh", "ja"])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_emptying_a_prediction_never_improves_a_mean(language: str, unanswerable: bool, data: st.DataObject):
    predictions = st.text(max_size=12) | answers | chinese_answers
    rows = data.draw(st.lists(st.tuples(predictions, some_words(language)), min_size=1, max_size=4))
    place = data.draw(st.integers(0, len(rows) - 1))
    if unanswerable:
        rows = [*rows, (data.draw(predictions), "")]
    assert_emptying_never_improves(language, rows, place)


@pytest.mark.parametrize(
    ("language", "prediction", "reference"), [("en", "B", "A"), ("en", "Abba", "The The"), ("zh", "逗号", "。")]
)
def test_empty_prediction_matches_reference_that_normalizes_to_nothing(language: str, prediction: str, reference: str):
    # The official scripts' result, where the rule cannot hold: exact match improves, F1 does not.
    assert values(sample(prediction, reference, language=language)) == (0, 0)
    assert values(sample("", reference, language=language)) == (100, 0)


@pytest.mark.parametrize("language", ["en", "zh", "ja"])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_answers_with_a_word_score_100_against_themselves(language: str, data: st.DataObject):
    texts = data.draw(st.lists(some_words(language), min_size=1, max_size=3))
    rows = [(text, [text]) for text in texts]
    assert values(*numbered(rows, language)) == pytest.approx((100, 100))
