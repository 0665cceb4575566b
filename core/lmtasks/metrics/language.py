"""The language of references, which metrics depend on: the stated one, or the one that their script indicates."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import regex

from lmtasks.errors import option
from lmtasks.languages import primary, states_language
from lmtasks.metrics.language_id import identify_all
from lmtasks.task import Example, Sample

UNSPACED = {
    # Bopomofo too, the phonetic script of Chinese.
    "zh": r"\p{Han}\p{Bopomofo}",
    # The prolonged sound mark belongs to both kana, and to Unicode's script "Common".
    "ja": r"\p{Hiragana}\p{Katakana}ーｰ",
    "th": r"\p{Thai}",
    "lo": r"\p{Lao}",
    "my": r"\p{Myanmar}",
    "km": r"\p{Khmer}",
    **{
        f"und-{script}": rf"\p{{Script={script}}}"
        for script in (
            "Tibt", "Yiii", "Java", "Bali", "Bugi", "Batk", "Cham", "Lana", "Talu", "Tale", "Tavt", "Ahom", "Gukh",
            "Nshu", "Tang", "Brah", "Gran", "Tutg", "Kawi", "Maka", "Diak",
        )
    },
}  # fmt: skip
"""Scripts without spaces between words, with their characters: texts are compared character by character.

In these scripts, lines may break elsewhere than at spaces: classes SA, ID, CJ, AK and AS of UAX #14, but not Hangul;
Tibetan, which has a mark between syllables instead of a space; Buginese and Makasar, which break at syllables too
(Unicode Standard, chapter 17).
"""
LETTERS = {tag: UNSPACED[tag] for tag in UNSPACED if tag not in ("zh", "ja", "und-Yiii", "und-Nshu", "und-Tang")}
"""Those of them whose characters are letters and marks, several per syllable, and not words or syllables."""
SPACED = {
    "ko": "Hangul",
    **{
        f"und-{script}": script
        for script in (
            "Latn", "Cyrl", "Grek", "Arab", "Hebr", "Deva", "Beng", "Guru", "Gujr", "Orya", "Taml", "Telu", "Knda",
            "Mlym", "Sinh", "Geor", "Armn", "Ethi", "Mong", "Cher", "Thaa", "Syrc", "Cans", "Tfng",
        )
    },
}  # fmt: skip
"""Scripts of spaced languages, by ISO 15924 code; all but Hangul serve many languages. Others are "und"."""
_CHARACTERS = {**UNSPACED, **{tag: rf"\p{{Script={script}}}" for tag, script in SPACED.items()}}
_KNOWN = "".join(_CHARACTERS.values())
_OTHER = rf"(?V1)[\p{{L}}--[{_KNOWN}\p{{Common}}\p{{Inherited}}]]"
# Units to count: characters of unspaced scripts and words of spaced ones, so that both have equal weight.
_UNITS = {tag: regex.compile(rf"[{characters}]") for tag, characters in UNSPACED.items()} | {
    tag: regex.compile(rf"{_CHARACTERS[tag]}[{_CHARACTERS[tag]}\p{{M}}]*+") for tag in SPACED
}
_UNITS["und"] = regex.compile(rf"{_OTHER}[\p{{L}}\p{{M}}--[{_KNOWN}]]*+")
_LETTER = regex.compile(r"\p{L}")
_UNSPACED_LETTER = regex.compile(rf"(?V1)[\p{{L}}&&[{''.join(UNSPACED.values())}]]")
_BY_CHARACTER = {"zh": True, "ja": True, "ko": False}
"""Languages for which the script does not matter: Korean has spaces, even between Hanja."""

_SCRIPT = re.compile(r"[-_]([A-Z][a-z]{3})(?![A-Za-z0-9])")
_UNSPACED_SCRIPTS = frozenset(
    ["Hani", "Hans", "Hant", "Jpan", "Hira", "Kana", "Hrkt", "Bopo", "Thai", "Laoo", "Mymr", "Khmr"]
    + [tag.removeprefix("und-") for tag in UNSPACED if tag.startswith("und-")]
)
_UNSPACED_LANGUAGES = frozenset(["zh", "ja", "th", "lo", "my", "km", "bo", "dz", "ii"])
_EITHER_LANGUAGES = frozenset(["jv", "su", "pi", "sa", "za"])
"""Languages of two letters that are also written in a script without spaces."""

STRAYS = 0.05
"""A script of fewer than this share of the references does not by itself make a set a mixed one."""
NAME_WORDS = 5
"""Words that a name within a text of another script has at most; more are a sentence."""


def is_by_character(samples: Sequence[Example | Sample], language: str | None) -> bool:
    """Return whether a corpus is compared by characters, as its words have no spaces between them.

    Chinese, Japanese and Korean decide that by themselves. In any other language, stated or not, it is so where most
    letters of the references are of a script without spaces; outputs have no say, so that all systems on the same
    data share a tokenizer. References without any letter are as their language is usually written.

    Args:
        samples: a corpus in one language.
        language: a BCP 47 tag, or None.
    """
    subtag = primary(language)
    if subtag in _BY_CHARACTER:
        return _BY_CHARACTER[subtag]
    characters: Counter[str] = Counter()
    for sample in samples:
        for text in sample.references:
            characters.update(text)
    letters = sum(count for character, count in characters.items() if _LETTER.match(character))
    unspaced = sum(count for character, count in characters.items() if _UNSPACED_LETTER.match(character))
    return 2 * unspaced > letters if letters else bool(_states_no_spaces(language))


def language_of(item: Example | Sample) -> str | None:
    """Return the language of references, as their script indicates.

    The inputs decide if the references have no letters, or no more than a name in Latin letters and the inputs have
    another script.

    Returns:
        A BCP 47 tag; "und-" and the script where it serves many languages; None for text without any letter.
    """
    of_references = _script(item.references)
    if of_references not in (None, "zh", "und-Latn") or (
        of_references == "und-Latn" and _words(item, of_references) > NAME_WORDS
    ):
        return of_references
    of_inputs = _script(item.inputs.values())
    if of_references == "zh":
        return "ja" if of_inputs == "ja" else of_references
    return of_inputs or of_references


def group_by_language(samples: Sequence[Sample]) -> dict[tuple[str | None, bool], list[Sample]]:
    """Group samples by the language of their references: the stated one, or the result of `language_of`.

    Texts without letters join the largest group that `language_of` found. A few references in another spaced script
    do not make a set a mixed one: if they are fewer than 1 in 20, no longer than a name, and their inputs have the
    script of the rest (a Greek word as the answer to an English question), they join the rest.

    Returns:
        Samples by language and whether it was stated. A group in Latin letters is "en" if it is identified as
        English, else "und-Latn"; None stands for a set without letters.
    """
    groups: dict[tuple[str | None, bool], list[Sample]] = {}
    for sample in samples:
        key = (sample.language, True) if states_language(sample.language) else (language_of(sample), False)
        groups.setdefault(key, []).append(sample)
    read = {key: len(members) for key, members in groups.items() if not key[1] and key[0]}
    if read:
        most = max(read, key=lambda key: (read[key], str(key[0])))
        for key in read:
            if key != most and key[0] not in UNSPACED and read[key] < STRAYS * sum(read.values()):
                for sample in groups.pop(key):
                    strays = _script(sample.inputs.values()) == most[0] and _words(sample, key[0]) <= NAME_WORDS
                    groups.setdefault(most if strays else key, []).append(sample)
        groups[most] += groups.pop((None, False), [])
    latin = groups.pop(("und-Latn", False), None)
    if latin:
        groups["en" if _looks_english(latin) else "und-Latn", False] = latin
    return {key: sorted(members, key=lambda sample: sample.index) for key, members in groups.items()}


def language_warning(groups: Mapping[tuple[str | None, bool], Sequence[Sample]]) -> str | None:
    """Return a warning about the languages of a set, or None.

    Args:
        groups: as `group_by_language` returns them.
    """
    for (language, stated), members in groups.items():
        script = _script(text for sample in members for text in sample.references)
        # Text without letters fits every language; Japanese may have Chinese characters only.
        if stated and script and _states_no_spaces(language) not in (None, script in UNSPACED):
            return (
                f'the references are stated to be in "{language}", but look like {script.removeprefix("und-")}: are'
                f" their column and {option('language')} right?"
            )
    if len(groups) > 1 and not all(stated for _, stated in groups):
        largest_first = sorted(
            ((len(members), language or "unknown") for (language, _), members in groups.items()), reverse=True
        )
        counts = ", ".join(f"{count} as {language}" for count, language in largest_first)
        return (
            f"the references are taken {counts}, each scored for itself; set {option('language')} to score all as one"
        )
    return None


def _states_no_spaces(language: str | None) -> bool | None:
    """Return whether a language tag means a script without spaces; None if it may or may not."""
    if language and (script := _SCRIPT.search(language)):
        return script[1] in _UNSPACED_SCRIPTS
    subtag = primary(language)
    if subtag in _UNSPACED_LANGUAGES:
        return True
    # Most languages of three letters are small; many of those in Asia write Burmese, Thai or Tibetan letters.
    return None if subtag in _EITHER_LANGUAGES or len(subtag) != 2 else False


def _words(item: Example | Sample, tag: str | None) -> int:
    """Return the number of words in a script that the longest reference has."""
    pattern = _UNITS.get(tag or "", _LETTER)
    return max((len(pattern.findall(text)) for text in item.references), default=0)


def _script(texts: Iterable[str]) -> str | None:
    joined = "\n".join(texts)
    present = {_tag(character) for character in set(joined)}
    counts = Counter({tag: len(pattern.findall(joined)) for tag, pattern in _UNITS.items() if tag in present})
    if not counts:
        return "und" if _LETTER.search(joined) else None
    # Japanese is written in Chinese characters and kana; Chinese may quote a kana or two.
    if counts["ja"] > 0.1 * (counts["ja"] + counts["zh"]):
        counts["ja"] += counts["zh"]
    return counts.most_common(1)[0][0]


@lru_cache(maxsize=2**16)
def _tag(character: str) -> str | None:
    """Return the tag of the script that a character counts for, or None."""
    return next((tag for tag, pattern in _UNITS.items() if pattern.match(character)), None)


def _looks_english(samples: Sequence[Sample]) -> bool:
    """Return whether references in Latin letters are in English; for names, the inputs are identified first."""
    references = [text for sample in samples for text in sample.references]
    inputs = [text for sample in samples for text in sample.inputs.values()]
    names = sum(_words(sample, "und-Latn") <= NAME_WORDS for sample in samples) > len(samples) / 2
    for texts in (inputs, references) if names else (references, inputs):
        if (language := identify_all(texts)) is not None:
            return language == "en"
    return "\n".join(references).isascii()
