"""What counts as a text that shows nothing."""

from __future__ import annotations

import sys
import unicodedata

import pytest
import regex

from lmtasks.text_utils import folded, is_blank


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \t\r\n\x0b\x0c",
        "\x00\x07\x1b\x7f\x85\x9f",
        "\u00a0\u2003\u202f\u3000\u2028\u2029",
        "\u200b\u200c\u200d\u2060\ufeff",
        "\u00ad",
        "\u200e\u200f\u061c\u202a\u202e\u2066\u2069",
        "\ufe0e\ufe0f\U000e0100",
        "\u180b\u180e\u180f",
        "\U000e0001\U000e0065\U000e006e",
        "\u034f",
        "\u115f\u1160\u3164\uffa0",
        "\u17b4\u17b5",
        "\u2800",
        "\u2061\u2062\u2063\u2064",
        "\U0001d159\U0001d173",
        " \u200b\n\u2800 ",
    ],
)
def test_is_blank_accepts_text_that_shows_nothing(text):
    assert is_blank(text)


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "\u200ba",
        "-",
        "\u2026",
        "\U0001f642",
        "\u2764\ufe0f",
        "\u0301",
        "\u0e31",
        "\u17b6",
        "\u0604",
        "\u06dd",
        "\u2801",
        "\u3163",
        "\ufffd",
        "\ufffc",
        "\ue000",
        "\u20e3",
    ],
)
def test_is_blank_rejects_text_that_shows_anything(text):
    assert not is_blank(text)


def test_is_blank_agrees_with_unicode_on_every_character():
    blank = {character for character in map(chr, range(sys.maxunicode + 1)) if is_blank(character)}
    ignorable = regex.compile(r"\p{Default_Ignorable_Code_Point}")
    space_or_control = {
        c for c in map(chr, range(sys.maxunicode + 1)) if c.isspace() or unicodedata.category(c) == "Cc"
    }
    assert {c for c in map(chr, range(sys.maxunicode + 1)) if ignorable.match(c)} <= blank
    assert space_or_control <= blank
    visible = {
        c for c in blank - space_or_control if not ignorable.match(c) and unicodedata.category(c) not in ("Cf", "Cn")
    }
    assert visible == {"\u2800", "\U0001d159"}


@pytest.mark.parametrize(
    "text",
    [
        "Caf\u00e9 9",
        " cafe\u0301\n9",
        "CAF\u00c9\t9",
        "\uff43af\u00e9\u3000\uff19",
        "c\u00adaf\u00e9\u200b 9\ufeff",
        "\x07caf\u00e9\u00a09",
    ],
)
def test_folded_is_the_same_for_texts_that_read_the_same(text):
    assert folded(text) == "caf\u00e9 9"


def test_folded_keeps_readable_characters():
    assert len({folded(text) for text in ("a b", "ab", "a, b", "a\u0301 b", "", "a\nb c")}) == 6


def test_folded_is_idempotent():
    texts = (f"{chr(code)}\u0301\u0323a" for code in range(0x20, 0x2FA20))
    assert all(folded(folded(text)) == folded(text) for text in texts)
