"""Public data sets on the Hugging Face hub, by pair of languages."""

from __future__ import annotations

from lmtasks import HubDataset

WMT = {
    "wmt14": ("wmt/wmt14", "b199e406369ec1b7634206d3ded5ba45de2fe696", ("cs-en", "de-en", "fr-en", "ru-en")),
    "wmt16": ("wmt/wmt16", "41d8a4013aa1489f28fea60ec0932af246086482", ("cs-en", "de-en", "ru-en")),
    "wmt19": ("wmt/wmt19", "d94225b766b64224427e115ca71c45a1671e78eb", ("cs-en", "de-en", "fr-de", "ru-en", "zh-en")),
}
"""Hub id, commit and configurations by name; each configuration serves both directions."""
OPUS_100 = ("cs-en", "de-en", "de-fr", "en-es", "en-fr", "en-ja", "en-ko", "en-ru", "en-uk", "en-zh")
FLORES = {
    "en": "eng_Latn",
    "zh": "zho_Hans",
    "de": "deu_Latn",
    "fr": "fra_Latn",
    "es": "spa_Latn",
    "ja": "jpn_Jpan",
    "ko": "kor_Hang",
    "ru": "rus_Cyrl",
    "cs": "ces_Latn",
    "uk": "ukr_Cyrl",
}
"""Columns by language."""
TATOEBA = {
    "zh": "cmn",
    "de": "deu",
    "fr": "fra",
    "es": "spa",
    "ja": "jpn",
    "ko": "kor",
    "ru": "rus",
    "cs": "ces",
    "uk": "ukr",
}
"""Language codes in configurations, which pair each language with English."""


def public_sets(source: str, target: str) -> dict[str, HubDataset]:
    """Return the sets that have a pair of languages, by name."""
    both = {f"{source}-{target}", f"{target}-{source}"}
    sets = {
        name: HubDataset(id=id, revision=revision, config=config, license="unknown")
        for name, (id, revision, configs) in WMT.items()
        for config in configs
        if config in both
    }
    for config in both.intersection(OPUS_100):
        sets["opus-100"] = HubDataset(
            id="Helsinki-NLP/opus-100",
            revision="805090dc28bf78897da9641cdf08b61287580df9",
            config=config,
            license="unknown",
        )
    sets["flores"] = HubDataset(
        id="mteb/FloresBitextMining",
        revision="2144d16cc15edd22d4a9237d12bff5f31f5c07fc",
        columns={"text": FLORES[source], "references": FLORES[target]},
        license="CC-BY-SA-4.0",
    )
    if both == {"en-de", "de-en"}:
        sets["multi30k"] = HubDataset(
            id="bentrevett/multi30k",
            revision="4589883f3d09d4ef6361784e03f0ead219836469",
            license="research and education only",
        )
    if "en" in (source, target):
        other = target if source == "en" else source
        columns = {"en": "sentence2", other: "sentence1"}
        sets["tatoeba"] = HubDataset(
            id="mteb/tatoeba-bitext-mining",
            revision="69e8f12da6e31d59addadda9a9c8a2e601a0e282",
            config=f"{TATOEBA[other]}-eng",
            columns={"text": columns[source], "references": columns[target]},
            license="CC-BY-2.0",
        )
    return sets
