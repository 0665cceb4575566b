from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtasks import Example, Sample
from lmtasks.languages import primary
from lmtasks.metrics import language_of
from lmtasks.metrics.language import group_by_language
from lmtasks.metrics.tokenize import normal, sentences, tokens

CHINESE = "渡轮九点离开港口，最后一班六点返回。"
JAPANESE = "フェリーは九時に港を出ます。"
ENGLISH = "The ferry leaves the harbour at nine, and the last one returns at six."
GERMAN = "Die Fähre verlässt den Hafen um neun, die letzte kehrt um sechs zurück."
FRENCH = "Le ferry quitte le port à neuf heures et le dernier revient à six heures."


def sample(prediction: str, *references: str, language: str | None = None, index: int = 0, context: str = "") -> Sample:
    return Sample(
        index=index,
        id=str(index),
        inputs={"context": context} if context else {},
        references=references,
        language=language,
        prediction=prediction,
    )


def read(reference: str, context: str = "") -> str | None:
    return language_of(sample("", reference, context=context))


def grouped(*samples: Sample) -> dict[tuple[str | None, bool], list[int]]:
    """Indices by language and whether it was stated; samples get their place as index."""
    numbered = [
        sample(
            each.prediction,
            *each.references,
            language=each.language,
            index=index,
            context=each.inputs.get("context", ""),
        )
        for index, each in enumerate(samples)
    ]
    return {key: [member.index for member in members] for key, members in group_by_language(numbered).items()}


# What a script tells


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (CHINESE, "zh"),
        ("渡輪九點離開港口", "zh"),
        (JAPANESE, "ja"),
        ("ﾌｪﾘｰ", "ja"),
        ("페리는 아홉 시에 떠납니다", "ko"),
        ("เรือออกจากท่าเวลาเก้าโมง", "th"),
        ("ເຮືອອອກເວລາເກົ້າໂມງ", "lo"),
        ("သင်္ဘောထွက်သည်", "my"),
        ("សាឡាងចេញដំណើរ", "km"),
        ("བཀྲ་ཤིས་བདེ་ལེགས", "und-Tibt"),
        ("ꆈꌠꁱꂷ", "und-Yiii"),
        ("ㄅㄆㄇㄈ", "zh"),
        ("Паром отходит в девять", "und-Cyrl"),
        ("Το πλοίο φεύγει στις εννέα", "und-Grek"),
        ("تغادر العبارة الميناء", "und-Arab"),
        ("המעבורת יוצאת בתשע", "und-Hebr"),
        ("नौका नौ बजे छोड़ती है", "und-Deva"),
        ("আমি বাংলা ভালোবাসি", "und-Beng"),
        ("ქართული ენა", "und-Geor"),
        ("ߒߞߏ", "und"),
        (ENGLISH, "und-Latn"),
        (GERMAN, "und-Latn"),
    ],
)
def test_language_of_reads_the_script_of_references(text: str, language: str):
    assert read(text) == language


def test_language_of_accepts_examples_and_samples():
    example = Example(id="0", inputs={"question": "何年？", "context": CHINESE}, references=("1943",))
    assert language_of(example) == "zh"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("他在 Nexon 公司工作", "zh"),
        ("The sign 猫 means cat in Chinese", "und-Latn"),
        ("東京駅で会いましょう", "ja"),
        ("新鲜蔬菜水果の店铺每日优选", "zh"),
        ("Слово Nexon пишется латиницей", "und-Cyrl"),
    ],
)
def test_language_of_uses_the_larger_part_of_a_mixed_text(text: str, language: str):
    assert read(text) == language


def test_language_of_reads_all_references_together():
    assert language_of(sample("", "Nexon", "渡轮离开港口")) == "zh"


@pytest.mark.parametrize("answer", ["1943", "Nexon", "3.5%", "", "!", "GPT-4"])
@pytest.mark.parametrize(("context", "language"), [(CHINESE, "zh"), (JAPANESE, "ja"), ("Паром отходит", "und-Cyrl")])
def test_language_of_names_and_numbers_is_that_of_the_inputs(answer: str, context: str, language: str):
    assert read(answer, context) == language


def test_language_of_kanji_is_japanese_if_the_inputs_have_kana():
    assert read("東京", JAPANESE) == "ja"
    assert read("東京", CHINESE) == "zh"
    assert read("東京", ENGLISH) == "zh"
    assert read("東京") == "zh"


@pytest.mark.parametrize(("text", "language"), [(CHINESE, "zh"), (JAPANESE, "ja"), ("Паром отходит", "und-Cyrl")])
def test_language_of_references_in_another_script_is_their_own(text: str, language: str):
    assert read(text, ENGLISH) == language


def test_language_of_an_english_sentence_about_chinese_text_is_english():
    # Data for translation or summaries into English that nothing states the language of.
    assert list(grouped(sample("", ENGLISH, context=CHINESE))) == [("en", False)]


@pytest.mark.parametrize("text", ["", "1943", "3.5 %", "!?…", "🙂"])
def test_language_of_text_without_letters_is_none(text: str):
    assert read(text) is None
    assert read(text, "12 + 30") is None


@pytest.mark.parametrize(
    "text", ["আমি বাংলা ভালোবাসি", "தமிழ் மொழி", "ქართული ენა", "Հայերեն լեզու", "አማርኛ ቋንቋ", "తెలుగు భాష", "ߒߞߏ"]
)
def test_language_of_other_scripts_is_not_latin_because_of_inputs(text: str):
    assert read(text, ENGLISH) != "und-Latn"
    assert ("en", False) not in grouped(sample("", text, context=ENGLISH))


# Groups


@pytest.mark.parametrize(
    ("texts", "language"),
    [
        ([ENGLISH], "en"),
        (["Denver Broncos", "nine"], "en"),
        ([GERMAN], "und-Latn"),
        ([FRENCH], "und-Latn"),
        ([FRENCH, GERMAN], "und-Latn"),
        (["Zażółć gęślą jaźń"], "und-Latn"),
        ([ENGLISH] * 6 + ["café"], "en"),
        ([ENGLISH, GERMAN], "und-Latn"),
    ],
)
def test_group_in_latin_letters_is_english_if_accents_are_rare(texts: list[str], language: str):
    assert grouped(*(sample("", text) for text in texts)) == {(language, False): list(range(len(texts)))}


def test_group_in_latin_letters_ignores_normalization_forms():
    decomposed = unicodedata.normalize("NFD", GERMAN)
    assert decomposed != GERMAN
    assert list(grouped(sample("", decomposed))) == [("und-Latn", False)]


def test_group_of_numbers_with_german_inputs_is_not_english():
    assert ("en", False) not in grouped(sample("", "1943", context=GERMAN))


def test_group_of_chinese_includes_names():
    samples = [sample("", answer, context=CHINESE) for answer in ("港口", "Nexon", "1943", "九点")]
    assert grouped(*samples) == {("zh", False): [0, 1, 2, 3]}


def test_group_by_language_separates_languages():
    samples = [sample("", text) for text in (CHINESE, ENGLISH, JAPANESE, "九点", "Паром")]
    assert grouped(*samples) == {
        ("zh", False): [0, 3],
        ("en", False): [1],
        ("ja", False): [2],
        ("und-Cyrl", False): [4],
    }


@pytest.mark.parametrize("language", ["zh", "de", "en", "x-klingon"])
@pytest.mark.parametrize("text", [CHINESE, ENGLISH, "1943"])
def test_group_by_language_prefers_the_stated_language(language: str, text: str):
    assert grouped(sample("", text, language=language, context=JAPANESE)) == {(language, True): [0]}


def test_group_by_language_separates_stated_from_read_languages():
    samples = [sample("", "九点", language="zh"), sample("", "六点"), sample("", ENGLISH, language="en")]
    assert grouped(*samples) == {("zh", True): [0], ("zh", False): [1], ("en", True): [2]}


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_group_by_language_adds_numbers_to_the_majority(first: int):
    texts = ["九点", "六点", ENGLISH]
    samples = [sample("", text) for text in (*texts[:first], "1943", *texts[first:])]
    groups = grouped(*samples)
    assert set(groups) == {("zh", False), ("en", False)}
    assert first in groups["zh", False]
    assert groups["zh", False] == sorted(groups["zh", False])


@pytest.mark.parametrize("first", [0, 1, 2])
def test_group_by_language_adds_numbers_even_if_they_are_more(first: int):
    texts = ["1943", "42"]
    assert grouped(*(sample("", text) for text in (*texts[:first], "九点", *texts[first:]))) == {
        ("zh", False): [0, 1, 2]
    }


def test_group_by_language_never_adds_numbers_to_a_stated_language():
    assert grouped(sample("", "42"), sample("", "neun", language="de")) == {(None, False): [0], ("de", True): [1]}


def test_group_by_language_has_no_language_for_numbers_only():
    assert grouped(sample("", "1943"), sample("", "")) == {(None, False): [0, 1]}


def test_group_by_language_is_empty_without_samples():
    assert group_by_language([]) == {}


@pytest.mark.parametrize("language", [None, "zh"])
def test_group_by_language_keeps_the_order_of_the_data(language: str | None):
    samples = [sample("", "九点", language=language, index=index) for index in (2, 0, 1)]
    assert [member.index for member in group_by_language(samples)["zh", language is not None]] == [0, 1, 2]


def with_one_other(count: int, reference: str, context: str) -> dict[tuple[str | None, bool], list[int]]:
    return grouped(*[sample("", "Broncos", context=ENGLISH)] * (count - 1), sample("", reference, context=context))


def test_group_by_language_keeps_rare_words_of_another_script():
    assert with_one_other(21, "λόγος", ENGLISH) == {("en", False): list(range(21))}


@pytest.mark.parametrize(
    ("count", "reference", "context"), [(20, "λόγος", ENGLISH), (21, "λόγος", "Τι είναι αυτό;"), (21, "λόγος", "")]
)
def test_group_by_language_separates_frequent_words_of_another_script(count: int, reference: str, context: str):
    assert with_one_other(count, reference, context)["und-Grek", False] == [count - 1]


@pytest.mark.parametrize(("reference", "language"), [(CHINESE, "zh"), (JAPANESE, "ja")])
def test_group_by_language_never_counts_chinese_or_japanese_as_english(reference: str, language: str):
    assert with_one_other(40, reference, ENGLISH)[language, False] == [39]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([CHINESE, JAPANESE, ENGLISH, GERMAN, "1943", ""]),
            st.sampled_from([None, "zh", "en", "de"]),
            st.sampled_from(["", CHINESE, ENGLISH]),
        )
    )
)
def test_group_by_language_has_every_sample_once(rows: list[tuple[str, str | None, str]]):
    groups = grouped(*(sample("", text, language=language, context=context) for text, language, context in rows))
    assert sorted(index for members in groups.values() for index in members) == list(range(len(rows)))
    for (language, stated), members in groups.items():
        assert all(rows[index][1] == language for index in members if rows[index][1])
        assert stated or not any(rows[index][1] for index in members)


# Tags


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("zh", "zh"),
        ("zh-Hant-TW", "zh"),
        ("pt_BR", "pt"),
        ("EN-us", "en"),
        ("und-Latn", "und"),
        (None, "und"),
        ("", "und"),
    ],
)
def test_primary_returns_the_first_subtag(tag: str | None, expected: str):
    assert primary(tag) == expected


# Tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t。，!?—", []),
        ("The Ferry leaves.", ["the", "ferry", "leaves"]),
        ("don't state-of-the-art foo_bar", ["don", "t", "state", "of", "the", "art", "foo", "bar"]),
        ("Größe, ÄPFEL und Öl", ["größe", "äpfel", "und", "öl"]),
        ("Привет, МИР!", ["привет", "мир"]),
        ("1,943 in 3.5", ["1", "943", "in", "3", "5"]),
        ("渡轮九点。", ["渡", "轮", "九", "点"]),
        ("COVID-19在2019年", ["covid", "19", "在", "2019", "年"]),
        ("他在Nexon工作", ["他", "在", "nexon", "工", "作"]),
        ("フェリー", ["フ", "ェ", "リ", "ー"]),
        ("九時に出る", ["九", "時", "に", "出", "る"]),
        ("페리는 아홉 시에", ["페리는", "아홉", "시에"]),
        ("เก้า", ["เ", "ก", "้", "า"]),
        ("𠮷野家", ["𠮷", "野", "家"]),
    ],
)
def test_tokens_are_characters_of_unspaced_scripts_and_words_of_others(text: str, expected: list[str]):
    assert tokens(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("مُحَمَّد", ["مُحَمَّد"]),
        ("שָׁלוֹם", ["שָׁלוֹם"]),
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        (unicodedata.normalize("NFD", "größe"), ["größe"]),
    ],
)
def test_tokens_keep_marks_with_their_letter(text: str, expected: list[str]):
    assert tokens(text) == [unicodedata.normalize("NFC", token) for token in expected]


@pytest.mark.parametrize("text", [GERMAN, FRENCH, "페리는 아홉 시에", "Việt Nam"])
def test_tokens_of_composed_and_decomposed_texts_are_equal(text: str):
    assert tokens(unicodedata.normalize("NFD", text)) == tokens(unicodedata.normalize("NFC", text)) != []


def test_tokens_omit_the_japanese_middle_dot():
    assert tokens("スー・マリ") == ["ス", "ー", "マ", "リ"]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_tokens_never_contain_spaces(first: str, second: str):
    assert tokens(f"{first} {second}") == tokens(first) + tokens(second)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("𝐓𝐡𝐞 ＦＥＲＲＹ", ["the", "ferry"]),
        ("co\u00adoperation wo\u2060rd fer\ufeffry", ["cooperation", "word", "ferry"]),
        ("\u200bThe\u200b fer\u200bry", ["the", "ferry"]),
        ("\u200fשלום\u200e \u2067abc\u2069", ["שלום", "abc"]),
        ("葛\U000e0100飾 ❤\ufe0f 1\ufe0f2", ["葛", "飾", "12"]),
        # The vowel separator and variation selectors of Mongolian.
        ("ᠰᠠᠷ\u180eᠠ ᠭ\u180b", ["ᠰᠠᠷᠠ", "ᠭ"]),
        # Joiners mean something in Persian and Hindi, and nothing in Latin letters.
        ("می\u200cخواهم ok", ["می\u200cخواهم", "ok"]),
        ("कर्\u200dम क्\u200d\u200cष", ["कर्\u200dम", "क्\u200d\u200cष"]),
        ("Auf\u200clage wo\u0323\u200drd 1\u200d2", ["auflage", "wọrd", "12"]),
        ("क\u200d \u200dक\u200c\u200d.", ["क", "क"]),
        # Where a space of no width parts words, each character is a token.
        ("ភាសា\u200bខ្មែរ", ["ភ", "ា", "ស", "ា", "ខ", "្", "ម", "ែ", "រ"]),
        # Fillers and blanks make no word, nor does what is invisible alone.
        ("\u3164 \uffa0 \u115f\u1160 \u2800 \u200b\u200d \u17b4", []),
        ("İ\u0331STANBUL", ["i\u0331\u0307stanbul"]),
        ("ΟΔΟΣ ΟΔΟΣ.", ["οδος", "οδος"]),
    ],
)
def test_tokens_ignore_invisible_characters(text: str, expected: list[str]):
    assert tokens(text) == expected


odd_text = st.text(
    "Σςİiı\u0307\u0331\u0323\u0301\u0345éÅKaA𝐓ﬁß\u200c\u200d\u00ad\u200b\u034f\u3164\uffa0가ᄀनी\u094dش\u0651\u064e "
)


@settings(max_examples=300, deadline=None)
@given(st.text() | odd_text)
def test_normal_is_idempotent_for_texts(text: str):
    assert normal(normal(text)) == normal(text)


@pytest.mark.slow
def test_normal_is_idempotent_for_each_character():
    every = [chr(code) for code in range(0x110000)]
    assert [character for character in every if normal(normal(character)) != normal(character)] == []


# Sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n ", []),
        (
            "It leaves at nine. It returns! Why? Nobody knows.",
            ["It leaves at nine.", "It returns!", "Why?", "Nobody knows."],
        ),
        ("It ended. 1943 was over.", ["It ended.", "1943 was over."]),
        ("He left. “Why?” she asked.", ["He left.", "“Why?” she asked."]),
        ("first line\nsecond line\n\nthird", ["first line", "second line", "third"]),
        ("first\r\nsecond", ["first", "second"]),
        ("今天下雨。明天天晴！后天呢？不知道……也许", ["今天下雨。", "明天天晴！", "后天呢？", "不知道……", "也许"]),
        ("真的？！我不信。", ["真的？！", "我不信。"]),
        ("真的?我不信!好吧", ["真的?", "我不信!", "好吧"]),
        ("他说：“走吧！”然后走了。", ["他说：“走吧！”然后走了。"]),
        ("今天下雨。 明天天晴！\u3000后天呢？", ["今天下雨。", "明天天晴！", "后天呢？"]),
        ("船が出ます。六時に戻ります。", ["船が出ます。", "六時に戻ります。"]),
        ("Паром ушёл. Он вернётся.", ["Паром ушёл.", "Он вернётся."]),
        ("Sie ging. Über ihr war nichts.", ["Sie ging.", "Über ihr war nichts."]),
    ],
)
def test_sentences_end_at_lines_and_at_sentence_marks(text: str, expected: list[str]):
    assert sentences(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "It was 5 p.m. when the ferry left.",
        "Bread costs 3.5 euros in e.g. a shop.",
        "The version 2.0 is at example.org today.",
        "Das ist z.B. über ihm so.",
        "Он жил т.е. ещё жил там.",
        "See example.org/?page=1 for more.",
    ],
)
def test_sentences_do_not_end_before_a_small_letter_or_without_space(text: str):
    assert sentences(text) == [text]


def test_sentences_after_english_abbreviations_are_separate():
    assert sentences("Dr. Smith came. He left!")[-1] == "He left!"


@pytest.mark.parametrize(
    "text",
    [
        'He said "no." Then he left.',
        "(It rained.) We stayed.",
        "“Go!” She went.",
        "„Geh!“ Sie ging.",
        "« Va ! » Elle alla.",
    ],
)
def test_sentences_keep_closing_marks(text: str):
    first, second = sentences(text)
    assert f"{first} {second}" == text


@settings(max_examples=60, deadline=None)
@given(st.text("渡轮ab Ab.。!？\n", max_size=30))
def test_sentences_lose_only_white_space(text: str):
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())
    assert all(part == part.strip() and part and "\n" not in part for part in sentences(text))
