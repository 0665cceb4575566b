"""The warning of outputs and references in different Unicode normal forms, which looks the same and scores nothing."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtasks import Sample
from lmtasks.metrics import BUILTIN_METRICS, score_outputs, score_samples
from lmtasks.metrics.normalization import normalization_warning

GERMAN = ["Die Fähre überquert früh die Öresundbrücke.", "Größere Äpfel kosten mehr.", "Um neun"]
VIETNAMESE = "Tiếng Việt"


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def samples(*pairs: tuple[str, Sequence[str]], language: str = "de") -> list[Sample]:
    return [
        Sample(index=at, id=str(at), inputs={}, references=tuple(texts), prediction=text, language=language)
        for at, (text, texts) in enumerate(pairs)
    ]


def remarks(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "normalization" in record.getMessage()]


def test_normalization_warning_counts_outputs_and_scores_stay(caplog: pytest.LogCaptureFixture):
    pairs = samples(*((nfd(text), [text]) for text in GERMAN))
    found = {
        each.name: each.value
        for each in score_samples(pairs, [BUILTIN_METRICS["exact_match"], BUILTIN_METRICS["bleu"]], resamples=0)
    }
    assert found["exact_match"] == pytest.approx(100 / 3)
    assert found["BLEU"] < 50
    # The third text has no letter that could be taken apart.
    assert len(remarks(caplog)) == 1
    assert remarks(caplog)[0].startswith("2 of 3 outputs are in another Unicode normalization form")


def test_normalization_warning_counts_decomposed_references(caplog: pytest.LogCaptureFixture):
    score_samples(samples((GERMAN[0], [nfd(GERMAN[0])])), [BUILTIN_METRICS["chrf"]], resamples=0)
    assert len(remarks(caplog)) == 1


@pytest.mark.parametrize(
    ("output", "references"),
    [
        (GERMAN[0], [GERMAN[1]]),
        (nfd(GERMAN[0]), [nfd(GERMAN[0])]),
        (GERMAN[0], [nfd(GERMAN[0]), GERMAN[0]]),
        ("Um neun", [nfd(GERMAN[0])]),
        (nfd(GERMAN[0]), ["um neun"]),
        ("", [nfd(VIETNAMESE)]),
        ("渡轮", ["渡轮九点"]),
    ],
)
def test_normalization_warning_is_none_for_one_form(
    output: str, references: Sequence[str], caplog: pytest.LogCaptureFixture
):
    score_samples(samples((output, references)), [BUILTIN_METRICS["chrf"]], resamples=0)
    assert remarks(caplog) == []


@pytest.mark.parametrize("text", ["페리는 아홉 시에", VIETNAMESE, "ガイド", "Ελλάδα", "Й"])
def test_normalization_warning_covers_all_scripts_with_composed_letters(text: str):
    assert normalization_warning(samples((nfd(text), [text]))) is not None
    assert normalization_warning(samples((text, [text]))) is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text(), st.lists(st.text(), min_size=1)), min_size=1))
def test_normalization_warning_is_none_for_nfc(pairs: list[tuple[str, list[str]]]):
    normal = [
        (unicodedata.normalize("NFC", text), [unicodedata.normalize("NFC", each) for each in texts])
        for text, texts in pairs
    ]
    assert normalization_warning(samples(*normal)) is None


def test_normalization_warning_is_not_given_for_output_checks_only(caplog: pytest.LogCaptureFixture):
    score_outputs(samples((nfd(GERMAN[0]), [GERMAN[0]])), resamples=0)
    assert remarks(caplog) == []
