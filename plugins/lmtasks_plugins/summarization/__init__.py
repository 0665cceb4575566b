"""Summarization: articles, dialogues, and a headline or subject line for a text or e-mail."""

from __future__ import annotations

from pathlib import Path

from lmtasks import DataFile, Field, Generation, Prompt, Task, hookimpl

HERE = Path(__file__).parent
AROUND = " \n\t\"'“”*"
SUMMARIES = ("summary", "highlights", "abstract", "tldr")


def first_line(completion: str) -> str:
    """Keep the headline alone, without label and quotation marks: small models like to add both."""
    text = completion.strip(AROUND)
    for label in ("subject:", "headline:", "title:"):
        if text.lower().startswith(label):
            text = text[len(label) :].strip(AROUND)
    return text.partition("\n")[0].strip(AROUND)


ARTICLE = Task(
    name="summarization",
    version=1,
    summary="Summarize an article in a few sentences.",
    fields={
        "document": Field(columns=("article", "text", "content", "body", "dialogue", "source"), cut=True),
    },
    references=SUMMARIES,
    prompts={
        "plain": Prompt(
            user="$document\n\nSummarize the text above in two sentences.",
            cue="Summary:",
        ),
        "one-sentence": Prompt(
            system="You write short summaries that keep to the facts of the text.",
            user="Text:\n$document\n\nSummarize the text in one sentence.",
            cue="Summary:",
        ),
    },
    datasets={"demo": DataFile(path=HERE / "articles.jsonl", license="Apache-2.0")},
    metrics=("rouge", "chrf"),
    generation=Generation(max_new_tokens=128),
)

DIALOGUE = Task(
    name="summarization/dialogue",
    version=1,
    summary="Summarize a conversation: who wants, says and decides what.",
    fields={
        "document": Field(columns=("dialogue", "dialog", "conversation", "transcript", "text"), cut=True),
    },
    references=SUMMARIES,
    prompts={
        "plain": Prompt(
            user="Summarize the following dialogue in one or two sentences.\n\n$document",
            cue="Summary:",
        ),
        "reporter": Prompt(
            system="You report conversations briefly, in the third person.",
            user="Conversation:\n$document\n\nReport in one or two sentences.",
            cue="Report:",
        ),
    },
    datasets={"demo": DataFile(path=HERE / "dialogue.jsonl", license="Apache-2.0")},
    metrics=("rouge", "chrf"),
    generation=Generation(max_new_tokens=64),
)

HEADLINE = Task(
    name="summarization/headline",
    version=1,
    summary="Write the headline of a text, or the subject line of an e-mail.",
    fields={"document": Field(columns=("email", "article", "text", "body", "content"), cut=True)},
    references=("headline", "subject", "title", "summary"),
    prompts={
        "plain": Prompt(
            user="$document\n\nWrite a subject line of at most ten words for the text above. Write only the line.",
            cue="Subject:",
        ),
    },
    datasets={"demo": DataFile(path=HERE / "headline.jsonl", license="Apache-2.0")},
    metrics=("rouge", "chrf"),
    parse=first_line,
    generation=Generation(max_new_tokens=32),
)


@hookimpl
def register_tasks() -> list[Task]:
    """Return the summarization tasks, articles first."""
    return [ARTICLE, DIALOGUE, HEADLINE]
