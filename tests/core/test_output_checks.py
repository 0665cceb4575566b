"""What is wrong with outputs whatever the task: empty, unfinished, looping, copied, in another language, too long."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtasks import Sample, Score
from lmtasks.metrics import measure_outputs, score_outputs
from lmtasks.metrics.language_id import identify
from lmtasks.metrics.output_checks import is_copying, is_repeating, measure_output_checks
from lmtasks.text_utils import is_blank

KINDS = ("empty", "unfinished", "repeating", "copying", "wrong_language", "length_ratio")

PARAGRAPHS = {
    "en": (
        "The old ferry leaves the harbour every morning at nine, long before the first visitors have had their"
        " breakfast. Its captain has been on board for thirty years, and he knows each rock between the two islands."
        " When the sea is rough he waits, whatever his passengers say. In the evening the boat comes back with fish,"
        " letters and a few tired children. Nobody on the island remembers a winter in which it did not come at all."
    ),
    "de": (
        "Die alte Fähre verlässt den Hafen jeden Morgen um neun, lange bevor die ersten Gäste gefrühstückt haben. Ihr"
        " Kapitän ist seit dreißig Jahren an Bord und kennt jeden Felsen zwischen den beiden Inseln. Ist das Meer zu"
        " rau, so wartet er, was auch immer die Reisenden sagen. Am Abend kommt das Schiff mit Fisch, Briefen und"
        " einigen müden Kindern zurück. Niemand auf der Insel erinnert sich an einen Winter, in dem es ganz ausblieb."
    ),
    "zh": (
        "这艘旧渡轮每天早上九点离开港口，那时第一批游客还没有吃早饭。船长在船上工作了三十年，熟悉两座岛之间的每一块礁石。"
        "海上风浪太大的时候，无论乘客怎么说，他都会等待。傍晚，船带着鱼、信件和几个疲倦的孩子回来。"
        "岛上没有人记得哪个冬天它完全没有来过。"
    ),
}
SUMMARIES = {
    "en": "An experienced captain has run the island's ferry for decades, except in storms.",
    "de": "Ein erfahrener Kapitän fährt seit Jahrzehnten zur Insel, nur bei Sturm bleibt er im Hafen.",
    "zh": "一位经验丰富的船长几十年来驾驶渡轮往返岛屿，只有风暴天才停航。",
}
DIALOGUE = """Anna: Did you bring the tickets for tonight?
Ben: I left them on the kitchen table, sorry!
Anna: Then we have to go back before the doors close at eight.
Ben: My brother can take them along, he starts at seven."""


def sample(
    prediction: str,
    *references: str,
    source: str | None = None,
    language: str | None = None,
    index: int = 0,
    finish_reason: str = "stop",
) -> Sample:
    return Sample(
        index=index,
        id=str(index),
        inputs={} if source is None else {"source": source},
        references=references,
        language=language,
        prediction=prediction,
        finish_reason=finish_reason,
    )


def health(*samples: Sample) -> dict[str, float]:
    """Values by name, without what was not measured."""
    numbered = [replace(each, index=index, id=str(index)) for index, each in enumerate(samples)]
    found: list[Score] = score_outputs(numbered, resamples=0)
    return {score.name: score.value for score in found}


def words(n: int, start: int = 0) -> list[str]:
    """Tokens that are all different."""
    return [f"w{at}" for at in range(start, start + n)]


# Ordinary outputs


@pytest.mark.parametrize("language", PARAGRAPHS)
def test_output_checks_find_nothing_in_ordinary_outputs(language: str):
    text, summary = PARAGRAPHS[language], SUMMARIES[language]
    summarised = sample(summary, summary + "!", source=text, language=language)
    written = sample(text, text[: len(text) // 2], source=summary, language=language)
    for each in (summarised, written):
        found = health(each)
        assert set(found) == set(KINDS)
        assert [found[name] for name in KINDS[:-1]] == [0] * 5
    assert health(summarised)["length_ratio"] == 1
    assert health(written)["length_ratio"] == pytest.approx(2, abs=0.1)


def test_output_checks_have_units_and_signatures():
    found = score_outputs([sample(SUMMARIES["en"], "Any.", source="any", language="en")])
    assert [score.name for score in found] == list(KINDS)
    for score in found:
        assert score.signature.startswith(f"{score.name}|")
        assert f"|version:{2 if score.name in ('empty', 'repeating', 'copying') else 1}" in score.signature
        # Outputs in all languages are counted together.
        assert (score.language, "lang:" in score.signature) == (None, False)
        ratio = score.name == "length_ratio"
        assert (score.unit, score.higher_is_better) == (("1 is equal", None) if ratio else ("0-100", False))


def test_output_checks_are_percentages_with_intervals():
    samples = [sample("nine" if index % 4 else "", "nine", language="en", index=index) for index in range(40)]
    empty = {score.name: score for score in score_outputs(samples, resamples=500)}["empty"]
    assert (empty.value, empty.n) == (25, 40)
    # 1.96 standard deviations: 13.4 points.
    assert 5 < empty.low < 18 < 32 < empty.high < 45


# Empty and unfinished


@pytest.mark.parametrize(
    "text", ["", " ", "\n\t", "\u3000", "\u200b", "\u00ad\ufeff", "\u2060 \u200e", "\u3164", "\u2800", "\x00"]
)
def test_empty_counts_texts_without_visible_characters(text: str):
    found = health(sample(text, "nine", source="nine", language="en"))
    assert {name: found[name] for name in KINDS} == {
        **dict.fromkeys(KINDS, 0),
        "empty": 100,
    }


def test_empty_does_not_count_a_right_empty_answer():
    assert health(sample("", "", language="en"))["empty"] == 0
    assert health(sample("", "nine", language="en"))["empty"] == 100
    assert health(sample("\u200b", "", language="en"))["empty"] == 0


@pytest.mark.parametrize("text", ["?", "0", "。", "🙂", "\u0301"])
def test_empty_does_not_count_punctuation(text: str):
    assert health(sample(text, "nine", language="en"))["empty"] == 0


def test_unfinished_counts_outputs_at_the_limit():
    outputs = [sample("nine", finish_reason=finish) for finish in ("length", "stop", "stop", "stop")]
    assert health(*outputs)["unfinished"] == 25


def test_unfinished_is_not_measured_for_predictions_from_elsewhere():
    unknown = sample("nine", "nine", finish_reason="unknown")
    assert "unfinished" not in health(unknown)
    assert health(unknown, sample("nine", finish_reason="length"))["unfinished"] == 100
    measurement = measure_output_checks([unknown], {"0": None})
    values = dict(
        zip([kind.name for kind in measurement.specs], measurement.combine(measurement.statistics[0]), strict=True)
    )
    assert math.isnan(values["unfinished"])


# Repeating


@pytest.mark.parametrize("language", PARAGRAPHS)
def test_repeating_does_not_count_ordinary_text(language: str):
    assert not is_repeating(PARAGRAPHS[language])


@pytest.mark.parametrize(
    "text",
    [
        "the " * 20,
        "I do not know. " * 5,
        "I don't know.\n" * 5,
        "Die Fähre verlässt den Hafen um neun. " * 3,
        "好" * 20,
        "我不知道。" * 5,
        "わからない。" * 4,
        "ha" + " Ha!" * 14,
        PARAGRAPHS["en"] + " And so it goes on." * 40,
        "哈哈，" * 10,
    ],
)
def test_repeating_counts_loops(text: str):
    assert is_repeating(text)


def test_repeating_needs_12_tokens_and_a_third_of_repeated_4_grams():
    assert is_repeating(" ".join(["w"] * 12))
    assert not is_repeating(" ".join(["w"] * 11))
    # 12 tokens have 9 runs of 4, of which 3 have been there: a third. 13 have 10, of which 3.
    assert is_repeating(" ".join(words(6) * 2))
    assert not is_repeating(" ".join([*words(7), *words(6)]))
    # Runs of 3 that come again are no loop.
    assert not is_repeating(" ".join(f"a b c w{at}" for at in range(20)))


def letters_without_spaces(alphabet: str, seed: int, n: int = 1500) -> str:
    """Words of an invented language, as unlike each other as those of real ones, in any order."""
    drawn = random.Random(seed)
    known = ["".join(drawn.choices(alphabet, k=drawn.randint(2, 5))) for _ in range(300)]
    return "".join(drawn.choices(known, weights=[1 / rank for rank in range(1, 301)], k=n))


@pytest.mark.parametrize(
    "alphabet",
    ["กขคงจชซดตถทนบปพมยรลวสหอาิีุูเแโไ่้์", "ကခဂငစဆညတထဒနပဖဗမယရလဝသဟအာိုေ့်း", "ཀཁགངཅཆཇཉཏཐདནཔཕབམཙཚཛཝཞཟའཡརལཤསཧཨིེོུ"],
    ids=["Thai", "Burmese", "Tibetan"],
)
def test_repeating_and_copying_ignore_long_texts_in_unspaced_letters(alphabet: str):
    # Letters come again sooner than words do: half of their 4-grams in a text of a few thousand.
    text, other = letters_without_spaces(alphabet, 1), letters_without_spaces(alphabet, 2)
    assert not is_repeating(text)
    assert is_repeating(text + text[:40] * 200)
    assert is_repeating(text[:7] * 8)
    assert not is_copying(sample(text, source=other))
    assert is_copying(sample(text[1000:2000], source=text))
    assert is_copying(sample(text[:9], source=text[:9]))


def test_repeating_ignores_case_and_punctuation():
    assert is_repeating("No, no! NO; no? “No” — no… no. (No) no: no/no, no")


@pytest.mark.parametrize("text", ["", "?", "Paris", "no no no", "..." * 40, "🙂" * 40])
def test_repeating_does_not_count_short_or_wordless_outputs(text: str):
    assert not is_repeating(text)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 200))
def test_repeating_never_counts_texts_of_distinct_words(n: int):
    assert not is_repeating(" ".join(words(n)))


# Copying


@pytest.mark.parametrize("language", PARAGRAPHS)
def test_copying_counts_a_paragraph_and_not_a_summary(language: str):
    text = PARAGRAPHS[language]
    assert not is_copying(sample(SUMMARIES[language], source=text))
    assert is_copying(sample(text, SUMMARIES[language], source=text))
    first_half = text[: len(text) // 2]
    assert is_copying(sample(first_half, SUMMARIES[language], source=text))


def test_copying_counts_a_copied_dialogue():
    summary = "Ben forgot the tickets, so his brother brings them."
    assert is_copying(sample(DIALOGUE, summary, source=DIALOGUE))
    # Without its last line, on one line, in capitals.
    assert is_copying(sample(DIALOGUE.rpartition("\n")[0].replace("\n", " ").upper(), summary, source=DIALOGUE))
    # Behind words of its own.
    assert is_copying(sample(f"Here is the dialogue: {DIALOGUE}", summary, source=DIALOGUE))
    assert not is_copying(sample(summary, "Ben's brother will bring the tickets.", source=DIALOGUE))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_copying_does_not_count_a_short_extractive_answer(language: str):
    answer = {"en": "thirty years", "zh": "三十年"}[language]
    assert answer in PARAGRAPHS[language]
    assert not is_copying(sample(answer, "decades", source=PARAGRAPHS[language]))


def test_copying_does_not_count_the_reference():
    first = PARAGRAPHS["en"].partition(".")[0] + "."
    assert is_copying(sample(first, "A ferry leaves at nine.", source=PARAGRAPHS["en"]))
    assert not is_copying(sample(first, "A ferry leaves at nine.", first, source=PARAGRAPHS["en"]))
    assert not is_copying(sample(first.upper(), first, source=PARAGRAPHS["en"]))
    assert not is_copying(sample("Paris", "Paris", source="Paris"))


def test_copying_does_not_count_extracts_if_references_are_extracts():
    text = PARAGRAPHS["en"]
    first, second = text[: len(text) // 3], text[len(text) // 3 : len(text) // 3 * 2]
    assert is_copying(sample(first, SUMMARIES["en"], source=text))
    assert not is_copying(sample(first, second, source=text))
    assert not is_copying(sample(first, SUMMARIES["en"], second, source=text))
    # What the reference has of its own words does not excuse a copy of the rest.
    assert is_copying(sample(first, f"{SUMMARIES['en']} {second[:60]}", source=text))


@pytest.mark.parametrize("text", ["The ferry leaves at nine.", "Nine.", "渡轮九点离开港口。", "Größe"])
def test_copying_counts_an_untranslated_short_sentence(text: str):
    assert is_copying(sample(text, "Le ferry part à neuf heures.", source=text))
    assert is_copying(sample(text.strip(".。").lower(), "Le ferry part à neuf heures.", source=f" {text}\n"))


def test_copying_compares_with_every_input():
    question = "How long has the captain been on board?"
    asked = Sample(
        index=0, id="0", inputs={"context": PARAGRAPHS["en"], "question": question}, references=(), prediction=question
    )
    assert is_copying(asked)
    assert is_copying(replace(asked, prediction=PARAGRAPHS["en"]))
    assert not is_copying(replace(asked, prediction="thirty years"))


def test_copying_needs_16_tokens_and_four_fifths_in_runs_of_8():
    source = " ".join(words(40))

    def copied(*parts: Sequence[str]) -> bool:
        return is_copying(sample(" ".join(word for part in parts for word in part), source=source))

    assert copied(words(16))
    assert not copied(words(15))
    own = words(10, start=100)
    assert copied(words(16), own[:4])
    assert not copied(words(15), own[:5])
    # Runs of 8 count wherever they stand in the output, shorter ones do not.
    assert copied(words(8, start=20), own[:2], words(8), own[2:4])
    assert not copied(words(7, start=20), own[:1], words(7), own[1:2], words(7, start=30))


@pytest.mark.parametrize("text", ["", " ", "?", "。"])
def test_copying_does_not_count_empty_outputs(text: str):
    assert not is_copying(sample(text, source=text))


def test_copying_is_not_measured_without_inputs():
    assert "copying" not in health(sample("nine", "nine"))
    assert health(sample("nine", "nine"), sample("six", "nine", source="six"))["copying"] == 100


# The wrong language


@pytest.mark.parametrize(("text", "language"), [(text, language) for language, text in PARAGRAPHS.items()])
def test_identify_returns_the_language_of_paragraphs(text: str, language: str):
    assert identify(text) == language


@pytest.mark.parametrize(
    "text",
    ["", " ", "Paris", "OK", "12345", "yes", "Nein", "Levi's Stadium", "Angela Merkel", "GPT-4", "1943 年", "?!", "🙂"],
)
def test_identify_returns_none_for_names_numbers_and_single_words(text: str):
    assert identify(text) is None
    for language in PARAGRAPHS:
        assert health(sample(text, "nine", language=language))["wrong_language"] == 0


@pytest.mark.parametrize("written", PARAGRAPHS)
@pytest.mark.parametrize("wanted", PARAGRAPHS)
def test_wrong_language_counts_outputs_in_another_language(written: str, wanted: str):
    whole = PARAGRAPHS[written]
    for text in (whole, whole[: len(whole) // 2], whole[len(whole) // 2 :]):
        expected = 100 if written != wanted else 0
        assert health(sample(text, SUMMARIES[wanted], language=wanted))["wrong_language"] == expected


@pytest.mark.parametrize("text", [SUMMARIES["zh"], "渡轮九点离开港口。"])
def test_wrong_language_counts_a_chinese_sentence_for_english(text: str):
    assert identify(text) == "zh"
    assert health(sample(text, SUMMARIES["en"], language="en"))["wrong_language"] == 100


def test_wrong_language_uses_the_language_of_references():
    assert health(sample(PARAGRAPHS["en"], SUMMARIES["zh"]))["wrong_language"] == 100
    assert health(sample(PARAGRAPHS["zh"], SUMMARIES["zh"]))["wrong_language"] == 0


@pytest.mark.parametrize("language", ["zh-Hant-TW", "zho_Hans", "yue", "cmn"])
def test_wrong_language_treats_all_chinese_as_one(language: str):
    assert health(sample(PARAGRAPHS["zh"], "九点", language=language))["wrong_language"] == 0
    assert health(sample(PARAGRAPHS["en"], "九点", language=language))["wrong_language"] == 100


@pytest.mark.parametrize("language", ["no", "nb", "nn-NO"])
def test_wrong_language_treats_both_norwegians_as_one(language: str):
    text = "Ferga går fra havna hver morgen klokka ni, og kapteinen har vært om bord i mer enn tretti år nå."
    assert health(sample(text, "ni", language=language))["wrong_language"] == 0
    assert health(sample(PARAGRAPHS["en"], "ni", language=language))["wrong_language"] == 100


@pytest.mark.parametrize("language", ["x-klingon", "und-Latn", "tlh"])
def test_wrong_language_is_not_measured_for_unknown_languages(language: str):
    unknown = sample(PARAGRAPHS["en"], "nine", language=language)
    assert "wrong_language" not in health(unknown)
    german = sample(PARAGRAPHS["en"], "neun", language="de")
    assert health(unknown, german)["wrong_language"] == 100


# Length


def test_length_ratio_compares_tokens_with_the_mean_of_references():
    # 3 + 1 tokens where 2 and (1 + 5) / 2 were wanted.
    samples = [sample("one two, three.", "one two"), sample("六", "九", "渡轮九点离")]
    assert health(*samples)["length_ratio"] == pytest.approx(4 / 5)


def test_length_ratio_is_left_out_without_references():
    assert "length_ratio" not in health(sample("one two"))
    assert health(sample("one two three four"), sample("one", "one two", language="en"))["length_ratio"] == 0.5


@pytest.mark.parametrize("references", [("",), ("?",)])
def test_length_ratio_is_left_out_for_blank_references(references: tuple[str, ...]):
    assert "length_ratio" not in health(sample("one two", *references, language="en"))


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_length_ratio_interval_has_finite_bounds():
    samples = [sample("one two", "", language="en"), sample("one two", "one two three", language="en", index=1)]
    ratio = {score.name: score for score in score_outputs(samples, resamples=100)}["length_ratio"]
    assert math.isfinite(ratio.low)
    assert math.isfinite(ratio.high)


# All of them together


def test_output_checks_have_no_result_without_outputs():
    assert score_outputs([]) == []
    assert score_outputs([sample("", "nine", finish_reason="skipped")]) == []


def test_output_checks_ignore_skipped_samples():
    found = health(sample("nine", "nine", language="en"), sample("", "nine", language="en", finish_reason="skipped"))
    assert found["empty"] == 0
    assert found["length_ratio"] == 1


def test_output_checks_count_all_languages_together():
    samples = [sample("", "nine", language="en"), sample("九点", "九点"), sample("nine"), sample("neun", language="de")]
    numbered = [replace(each, index=index, id=str(index)) for index, each in enumerate(samples)]
    found = {score.name: score for score in score_outputs(numbered)}
    assert (found["empty"].value, found["empty"].n) == (25, 4)


def test_output_checks_of_any_two_runs_can_be_paired():
    bare = [sample("nine", finish_reason="unknown"), sample("six", finish_reason="unknown", index=1)]
    full = [sample("nine", "nine", source="9", language="en"), sample("six", "six", source="6", language="en", index=1)]
    first, second = (measure_outputs(samples)[0].measurement for samples in (bare, full))
    assert [kind.name for kind in first.specs] == [kind.name for kind in second.specs]
    assert first.statistics.shape == second.statistics.shape
    assert len(score_outputs(bare)) < len(score_outputs(full)) == len(KINDS)


def test_output_checks_n_counts_the_measured_outputs():
    samples = [
        sample("nine", "nine", source="9", language="en"),
        sample("six", index=1, finish_reason="unknown"),
        sample("six", "six", language="x-klingon", index=2, finish_reason="unknown"),
    ]
    found = {score.name: score.n for score in score_outputs(samples, resamples=0)}
    assert found == {
        "empty": 3,
        "unfinished": 1,
        "repeating": 3,
        "copying": 1,
        "wrong_language": 1,
        "length_ratio": 2,
    }


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(max_size=60), st.lists(st.text(min_size=1, max_size=30), max_size=2), st.text(max_size=60)),
        min_size=1,
        max_size=5,
    )
)
def test_output_checks_accept_any_text(rows: list[tuple[str, list[str], str]]):
    found = health(*(sample(text, *references, source=source) for text, references, source in rows))
    for name, value in found.items():
        assert not math.isnan(value)
        assert value >= 0
        assert value <= 100 or name == "length_ratio"
    empty = [is_blank(text) and not any(map(is_blank, references)) for text, references, _ in rows]
    assert found["empty"] == pytest.approx(100 * np.mean(empty))


def test_copying_does_not_count_an_answer_copied_like_the_reference():
    text = "渡轮每天早上九点离开港口，晚上六点返回，船长已经在船上工作了三十多年，从来没有迟到过一次。"
    wanted = text[14:40]
    extracted = sample(wanted[1:], wanted, source=text, language="zh")
    assert not is_copying(extracted)
    assert is_copying(sample(wanted[1:], "船长很准时。", source=text, language="zh"))
