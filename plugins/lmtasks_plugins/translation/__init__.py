"""Translation between pairs of languages. To add a pair, add it to PAIRS."""

from __future__ import annotations

from pathlib import Path

from lmtasks import DataFile, Field, Generate, Prompt, Task, hookimpl
from lmtasks_plugins.translation.public_sets import public_sets

SENTENCES = Path(__file__).with_name("sentences.jsonl")
LANGUAGES = {
    "en": "English",
    "zh": "Chinese",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "ja": "Japanese",
    "ko": "Korean",
    "ru": "Russian",
    "cs": "Czech",
    "uk": "Ukrainian",
}
"""Languages by primary BCP 47 subtag; the demo has a column for each."""
PAIRS = (
    *(pair for other in LANGUAGES if other != "en" for pair in (f"en-{other}", f"{other}-en")),
    *("de-fr", "fr-de", "cs-uk", "uk-cs"),
)
"""Source and target languages; plain "translation" means the first pair."""


def translation_task(pair: str) -> Task:
    """Return the task of a pair such as "en-zh"."""
    source, target = pair.split("-")
    from_language, to_language = LANGUAGES[source], LANGUAGES[target]
    return Task(
        name=f"translation/{pair}",
        version=1,
        summary=f"Translate {from_language} into {to_language}.",
        fields={"text": Field(columns=(f"translation.{source}", source, f"sentence_{source}", "src", "source"))},
        references=(f"translation.{target}", target, f"sentence_{target}", "tgt", "translation"),
        prompts={
            "plain": Prompt(
                user=f"Translate from {from_language} to {to_language}. Write only the translation.\n\n$text",
                answer_prefix=f"{to_language}:",
            ),
            "labels": Prompt(user=f"{from_language}: $text", answer_prefix=f"{to_language}:"),
        },
        datasets={"demo": DataFile(path=SENTENCES, license="Apache-2.0"), **public_sets(source, target)},
        metrics=("bleu", "chrf"),
        output=Generate(max_new_tokens=128),
        language=target,
        # Without this, data for another pair would be scored without an error.
        require_columns={"source_lang": source, "target_lang": target, "src_lang": source, "tgt_lang": target},
    )


@hookimpl
def register_tasks() -> list[Task]:
    """Return a task for each pair."""
    return [translation_task(pair) for pair in PAIRS]
