"""Identical texts have the best scores in every script that is in use, whether or not it writes spaces."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence

import pytest
import regex

from lmtasks import Metric, Sample, Score
from lmtasks.metrics import BUILTIN_METRICS, score_samples
from lmtasks.metrics.language import SPACED, UNSPACED, group_by_language, is_by_character, language_of
from lmtasks.metrics.scoring import measure_samples
from lmtasks.metrics.tokenize import tokens

METRICS: Sequence[Metric] = [
    BUILTIN_METRICS[name] for name in ("bleu", "chrf", "chrf++", "ter", "rouge", "exact_match", "f1")
]
BEST = {
    **dict.fromkeys(("BLEU", "chrF", "chrF++", "rouge1", "rouge2", "rougeL", "rougeLsum", "exact_match", "f1"), 100),
    "TER": 0,
}
# UAX #31, tables 5 and 7: scripts in use, by ISO 15924 code; of each, what is written without spaces.
WITHOUT_SPACES = [
    "Bali", "Batk", "Bopo", "Bugi", "Cham", "Hani", "Hira", "Java", "Kana", "Khmr", "Lana", "Laoo", "Mymr",
    "Tale", "Talu", "Tavt", "Thai", "Tibt", "Yiii",
]  # fmt: skip
WITH_SPACES = [
    "Adlm", "Arab", "Armn", "Bamu", "Beng", "Cakm", "Cans", "Cher", "Cyrl", "Deva", "Ethi", "Geor", "Grek",
    "Gujr", "Guru", "Hang", "Hebr", "Hmnp", "Kali", "Knda", "Latn", "Lepc", "Limb", "Lisu", "Mand", "Mlym",
    "Mong", "Mtei", "Newa", "Nkoo", "Olck", "Orya", "Osge", "Plrd", "Rohg", "Saur", "Sinh", "Sund", "Sylo",
    "Syrc", "Taml", "Telu", "Tfng", "Thaa", "Vaii", "Wcho",
]  # fmt: skip
EVERY_CHARACTER = "".join(map(chr, range(sys.maxunicode + 1)))
SENTENCES = {
    "bo": "འགྲོ་བ་མི་རིགས་ག་ར་དབང་ཆ་འདྲ་མཉམ་འབད་སྒྱེཝ་ལས་ག་ར་གིས་གཅིག་གིས་གཅིག་ལུ་སྤུན་ཆའི་དམ་ཚིག་བསྟན་དགོ།",
    "ii": "ꊿꂷꃅꄿꐨꐥꌐꊿꄮꃅꌋꆀꐯꀕꉬ",
    "jv-Java": "ꦱꦧꦼꦤ꧀ꦮꦺꦴꦁꦏꦭꦲꦶꦂꦫꦏꦺꦏꦤ꧀ꦛꦶꦩꦂꦢꦶꦏ",
    "shn_Mymr": "ၵူၼ်းၶိုၼ်းသေ်ၵေႃ့ပဵၼ်ၵူၼ်းလွတ်ႈလႅဝ်း",
    "khb": "ᦅᦸᧃᦷᦂᦳᧉᦓᦱᧄᦈᦲᧃ",
    "my": "လူတိုင်းသည်တူညီလွတ်လပ်သောဂုဏ်သိက္ခာဖြင့်မွေးဖွားလာသူများဖြစ်သည်။",
    "km": "មនុស្សទាំងអស់កើតមកមានសេរីភាពនិងភាពស្មើៗគ្នា។",
    "lo": "ມະນຸດທຸກຄົນເກີດມາມີສິດເທົ່າທຽມກັນ",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน",
    "nod": "ᨣᩫ᩠ᨶᨴ᩠ᩅᩁᨠᩮᩥ᩠ᨯᨾᩣᨾᩦᩋᩥᩔᩁᨽᩣᨻ",
    "ban": "ᬫᬦᬸᬲᬲᬫᬶᬤᬗᬸᬯᬳᬦᬫᬃᬤᬶᬓ",
    "bug": "ᨔᨗᨊᨗᨊᨈᨕᨘᨍᨍᨗᨂ",
}


def sample(prediction: str, *references: str, language: str | None = None, index: int = 0) -> Sample:
    return Sample(
        index=index, id=str(index), inputs={}, references=references, language=language, prediction=prediction
    )


def scores(*samples: Sample, metrics: Sequence[Metric] = METRICS) -> dict[str, Score]:
    found = {score.name: score for score in score_samples(samples, metrics, resamples=0)}
    assert len(found) >= len(metrics)
    return found


def values(*samples: Sample) -> dict[str, float]:
    return {name: score.value for name, score in scores(*samples).items()}


def letters(script: str) -> list[str]:
    return list(regex.findall(rf"(?V1)[\p{{Script={script}}}&&[\p{{Lo}}\p{{Ll}}]]", EVERY_CHARACTER)[:24])


@pytest.mark.parametrize("tag", [None, "x-private"])
@pytest.mark.parametrize("script", WITHOUT_SPACES)
def test_identical_texts_without_spaces_are_best_in_every_script(script: str, tag: str | None):
    text = "".join(letters(script))
    assert values(sample(text, text, language=tag)) == pytest.approx(BEST)
    other = "".join(reversed(letters(script)))
    assert values(sample(other, text, language=tag))["BLEU"] < 50


@pytest.mark.parametrize("tag", [None, "x-private"])
@pytest.mark.parametrize("script", WITH_SPACES)
def test_identical_texts_with_spaces_are_best_in_every_script(script: str, tag: str | None):
    found = letters(script)
    text = " ".join("".join(found[at : at + 4]) for at in range(0, 24, 4))
    assert values(sample(text, text, language=tag)) == pytest.approx(BEST)
    if script != "Hang":  # read as Korean, which keeps sacrebleu's tokenizer "char"
        assert "|tok:13a|" in scores(sample(text, text, language=tag))["BLEU"].signature


@pytest.mark.parametrize("stated", [True, False], ids=["stated", "read"])
@pytest.mark.parametrize("language", SENTENCES)
def test_identical_sentences_without_spaces_are_best_and_signed_char(language: str, stated: bool):
    text = SENTENCES[language]
    same = sample(text, text, language=language if stated else None)
    assert values(same) == pytest.approx(BEST)
    found = scores(same)
    assert "|tok:char|" in found["BLEU"].signature
    assert "|pretok:char|" in found["TER"].signature
    assert "|norm:chars2|" in found["f1"].signature


@pytest.mark.parametrize("metric", ["bleu", "ter", "f1", "rouge"])
def test_the_outputs_have_no_say_in_how_references_are_compared(metric: str):
    thai, english = SENTENCES["th"], "All human beings are born free and equal."
    for language in (None, "shn", "en", "th"):
        for reference in (thai, english):
            signatures = {
                tuple(score.signature for score in score_samples([each], [BUILTIN_METRICS[metric]], resamples=0))
                for output in (thai, english, "", "1943")
                for each in [sample(output, reference, language=language)]
            }
            assert len(signatures) == 1


def test_most_letters_of_the_whole_corpus_decide():
    samples = [sample("", SENTENCES["bo"], language="bo"), sample("", "Lhasa", language="bo", index=1)]
    assert "|tok:char|" in scores(*samples)["BLEU"].signature
    latin = [sample("", "ཨ", language="bo"), sample("", "Lhasa is the capital", language="bo", index=1)]
    assert "|tok:13a|" in scores(*latin)["BLEU"].signature
    assert is_by_character([sample("", "༡༩༤༣", language="bo")], "bo")
    assert not is_by_character([sample("", "1943", language="de")], "de")


@pytest.mark.parametrize(
    ("language", "reference", "tokenizer"),
    [
        ("zh", "The ferry leaves at nine", "zh"),
        ("ja", "The ferry leaves at nine", "char"),
        ("ko", "The ferry leaves at nine", "char"),
        ("ko", SENTENCES["th"], "char"),
        ("zh", SENTENCES["th"], "zh"),
        ("th", "The ferry leaves at nine", "13a"),
        ("en", SENTENCES["th"], "char"),
        ("en", "渡轮九点离开港口", "char"),
        ("hsn", "渡轮九点离开港口", "char"),
        ("nod", SENTENCES["th"], "char"),
        ("und-Tibt", SENTENCES["bo"], "char"),
        ("dz", "1943", "char"),
    ],
)
def test_zh_ja_and_ko_keep_their_tokenizer_and_the_script_decides_for_others(
    language: str, reference: str, tokenizer: str
):
    assert f"|tok:{tokenizer}|" in scores(sample("a", reference, language=language))["BLEU"].signature


def test_a_set_stated_to_be_english_in_a_script_without_spaces_is_not_read_by_an_english_tokenizer():
    # rouge-score keeps ASCII alone: 0 for identical texts.
    found = scores(sample(SENTENCES["bo"], SENTENCES["bo"], language="en"))
    assert found["rouge2"].value == pytest.approx(100)
    assert "|tok:lmtasks2|" in found["rouge2"].signature


@pytest.mark.parametrize("script", WITHOUT_SPACES)
def test_scripts_without_spaces_are_read_and_never_swallowed_by_others(script: str):
    text = "".join(letters(script))
    assert language_of(sample("", text)) in UNSPACED
    set_of_two = [sample("", "Denver Broncos won", index=at) for at in range(40)] + [sample("", text, index=40)]
    assert [40] in [[member.index for member in members] for members in group_by_language(set_of_two).values()]
    assert tokens(text) == list(unicodedata.normalize("NFKC", text))


def test_one_latin_word_does_not_make_a_text_in_a_rare_script_latin():
    assert language_of(sample("", "ߒߞߏ ߟߊ߫ ߞߊ߲ ߏ Wikipedia")) == "und"


def test_scripts_without_spaces_are_those_that_unicode_breaks_elsewhere():
    # Line-break classes of UAX #14: complex context, ideographs, kana, aksara. Hangul writes spaces; full-width Latin
    # is Latin, and what is common to scripts ("〆") decides nothing.
    breaks = r"(?V1)[[\p{lb=SA}\p{lb=ID}\p{lb=CJ}\p{lb=AK}\p{lb=AS}]&&\p{L}--\p{Hangul}--\p{Latin}--\p{Common}]"
    # Python's Unicode is older than that of `regex`, which would tell of scripts that its oldest release lacks.
    every = "".join(c for c in regex.findall(breaks, EVERY_CHARACTER) if unicodedata.category(c) != "Cn")
    assert len(every) > 90_000
    assert not regex.search(rf"[^{''.join(UNSPACED.values())}]", every)
    for script in SPACED.values():
        assert script == "Hangul" or not regex.search(rf"\p{{Script={script}}}", every)


# Doubts


@pytest.mark.parametrize(
    ("language", "reference", "doubted"),
    [
        ("en", SENTENCES["bo"], True),
        ("de", "渡轮九点离开港口", True),
        ("deu_Latn", "渡轮九点离开港口", True),
        ("th", "The ferry leaves at nine", True),
        ("shn_Mymr", "The ferry leaves at nine", True),
        ("bo", "The ferry leaves at nine", True),
        ("bo", SENTENCES["bo"], False),
        ("bod_Tibt", SENTENCES["bo"], False),
        ("shn_Mymr", SENTENCES["shn_Mymr"], False),
        ("shn", SENTENCES["shn_Mymr"], False),
        ("jv", SENTENCES["jv-Java"], False),
        ("jv", "Sabèn wong kalairaké kanthi mardika", False),
        ("cmn_Latn", "Wǒ men zǒu ba", False),
        ("und-Tibt", SENTENCES["bo"], False),
    ],
)
def test_a_stated_language_is_doubted_where_its_script_is_another(
    language: str, reference: str, doubted: bool, caplog: pytest.LogCaptureFixture
):
    measure_samples([sample("a", reference, language=language)], [BUILTIN_METRICS["chrf"]])
    assert ("are stated to be in" in caplog.text) == doubted
