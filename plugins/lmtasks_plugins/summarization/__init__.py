"""Summarization: articles, dialogues, and a headline or subject line for a text or e-mail."""

from __future__ import annotations

from pathlib import Path

from lmtasks import DataFile, Field, Generate, HubDataset, Prompt, Task, hookimpl

HERE = Path(__file__).parent
QUOTES_AND_SPACE = " \n\t\"'“”*"
SUMMARIES = ("summary", "highlights", "abstract", "tldr")


def read_headline(completion: str) -> str:
    """Return the headline without the label and quotation marks that small models add."""
    text = completion.strip(QUOTES_AND_SPACE)
    for label in ("subject:", "headline:", "title:"):
        if text.lower().startswith(label):
            text = text[len(label) :].strip(QUOTES_AND_SPACE)
    return text.partition("\n")[0].strip(QUOTES_AND_SPACE)


ARTICLE = Task(
    name="summarization",
    version=1,
    summary="Summarize an article in a few sentences.",
    fields={
        "document": Field(columns=("article", "text", "content", "body", "dialogue", "source"), truncatable=True),
    },
    references=SUMMARIES,
    prompts={
        "plain": Prompt(
            user="$document\n\nSummarize the text above in two sentences.",
            answer_prefix="Summary:",
        ),
        "one-sentence": Prompt(
            system="You write short summaries that keep to the facts of the text.",
            user="Text:\n$document\n\nSummarize the text in one sentence.",
            answer_prefix="Summary:",
        ),
    },
    datasets={
        "demo": DataFile(path=HERE / "articles.jsonl", license="Apache-2.0"),
        "cnn-dailymail": HubDataset(
            id="abisee/cnn_dailymail",
            revision="96df5e686bee6baa90b8bee7c28b81fa3fa6223d",
            config="3.0.0",
            license="Apache-2.0",
            language="en",
        ),
        "xsum": HubDataset(
            id="EdinburghNLP/xsum",
            revision="7d4d486c2f8ef850b1a11aead99b894ff3dd7da9",
            license="unknown",
            language="en",
        ),
    },
    metrics=("rouge", "chrf"),
    output=Generate(max_new_tokens=128),
)

DIALOGUE = Task(
    name="summarization/dialogue",
    version=1,
    summary="Summarize a conversation: who wants, says and decides what.",
    fields={
        "document": Field(columns=("dialogue", "dialog", "conversation", "transcript", "text"), truncatable=True),
    },
    references=SUMMARIES,
    prompts={
        "plain": Prompt(
            user="Summarize the following dialogue in one or two sentences.\n\n$document",
            answer_prefix="Summary:",
        ),
        "reporter": Prompt(
            system="You report conversations briefly, in the third person.",
            user="Conversation:\n$document\n\nReport in one or two sentences.",
            answer_prefix="Report:",
        ),
    },
    datasets={
        "demo": DataFile(path=HERE / "dialogue.jsonl", license="Apache-2.0"),
        "samsum": HubDataset(
            id="knkarthick/samsum",
            revision="6b929ff10edec703164e3ddb2e94aae058c9ab5f",
            license="CC-BY-NC-ND-4.0",
            language="en",
        ),
        "dialogsum": HubDataset(
            id="knkarthick/dialogsum",
            revision="f6bf536de69725c3228082c8455e2a3c2dc6af86",
            license="CC-BY-NC-SA-4.0",
            language="en",
        ),
    },
    metrics=("rouge", "chrf"),
    output=Generate(max_new_tokens=64),
)

HEADLINE = Task(
    name="summarization/headline",
    version=1,
    summary="Write the headline of a text, or the subject line of an e-mail.",
    fields={"document": Field(columns=("email", "article", "text", "body", "content"), truncatable=True)},
    references=("headline", "subject", "title", "summary"),
    prompts={
        "plain": Prompt(
            user="$document\n\nWrite a subject line of at most ten words for the text above. Write only the line.",
            answer_prefix="Subject:",
        ),
    },
    datasets={
        "demo": DataFile(path=HERE / "headline.jsonl", license="Apache-2.0"),
        "aeslc": HubDataset(
            id="Yale-LILY/aeslc",
            revision="2305f2e63b68056f9b9037a3805c8c196e0d5581",
            columns={"document": "email_body", "references": "subject_line"},
            license="CC-BY-NC-SA-4.0",
            language="en",
        ),
    },
    metrics=("rouge", "chrf"),
    output=Generate(max_new_tokens=32, parse=read_headline),
)


@hookimpl
def register_tasks() -> list[Task]:
    """Return the summarization tasks, articles first."""
    return [ARTICLE, DIALOGUE, HEADLINE]
