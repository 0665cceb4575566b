"""Question answering: from a text, from memory (closed-book), and for customers."""

from __future__ import annotations

import re
from pathlib import Path

from lmtasks import DataFile, Field, Generate, HubDataset, Prompt, Task, hookimpl

HERE = Path(__file__).parent
NO_ANSWER = "unanswerable"
NO_ANSWER_PATTERN = re.compile(rf"[\"'“]?{NO_ANSWER}[\"'”]?(\W|$)(?!\w)", re.IGNORECASE)
"""Matches the word alone or as a clause; "unanswerable questions" may be an answer."""
LABELS = ("answer:", "答案：", "答案:")
QUESTION = ("query", "input", "prompt")
XQUAD = ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh")
"""Languages of XQuAD; each has a set with translations of the same questions."""


def short_answer(completion: str) -> str:
    """Return the first line without a label, since small models explain their answer; "" if it says there is none."""
    text = completion.strip()
    for label in LABELS:
        if text.lower().startswith(label):
            text = text[len(label) :].strip()
    line = text.partition("\n")[0].strip()
    return "" if NO_ANSWER_PATTERN.match(line) else line


FROM_TEXT = Task(
    name="qa",
    version=1,
    summary="Answer a question from a text, or say that the text does not hold the answer.",
    fields={
        "context": Field(columns=("passage", "text", "document", "paragraph"), truncatable=True),
        "question": Field(columns=QUESTION),
    },
    references=("answers.text", "answers", "answer"),
    prompts={
        "plain": Prompt(
            user=f'$context\n\n$question Answer in at most five words, or with "{NO_ANSWER}" if the text does not say.',
            answer_prefix="Answer:",
        ),
        "strict": Prompt(
            system=f'You copy answers from a text, word by word. If the text holds no answer, you write "{NO_ANSWER}".',
            user="Text: $context\n\nQuestion: $question",
            answer_prefix="Answer:",
        ),
    },
    datasets={
        "demo": DataFile(path=HERE / "from_text.jsonl", license="Apache-2.0"),
        "squad": HubDataset(
            id="rajpurkar/squad",
            revision="7b6d24c440a36b6815f21b70d25016731768db1f",
            license="CC-BY-SA-4.0",
            language="en",
        ),
        "squad-v2": HubDataset(
            id="rajpurkar/squad_v2",
            revision="3ffb306f725f7d2ce8394bc1873b24868140c412",
            license="CC-BY-SA-4.0",
            language="en",
        ),
        "cmrc2018": HubDataset(
            id="hfl/cmrc2018",
            revision="137f2c45a24275fb68f6961c4d357f46288886aa",
            license="CC-BY-SA-4.0",
            language="zh",
        ),
        "drcd": HubDataset(
            id="clue/clue",
            revision="9bc980255c2fe8d2a9dda48c2001ace3101ad8f2",
            config="drcd",
            license="CC-BY-SA-3.0",
            language="zh",
        ),
        **{
            f"xquad-{language}": HubDataset(
                id="google/xquad",
                revision="51adfef1c1287aab1d2d91b5bead9bcfb9c68583",
                config=f"xquad.{language}",
                license="CC-BY-SA-4.0",
                language=language,
            )
            for language in XQUAD
        },
    },
    metrics=("exact_match", "f1"),
    output=Generate(max_new_tokens=48, parse=short_answer, no_answer=NO_ANSWER),
)

CLOSED_BOOK = Task(
    name="qa/closed-book",
    version=1,
    summary="Answer a question of general knowledge from memory.",
    fields={"question": Field(columns=QUESTION)},
    references=("answers.text", "answers", "answer", "answer.aliases"),
    prompts={
        "plain": Prompt(
            user="Question: $question\n\nAnswer with a name, a number or a few words, and nothing else.",
            answer_prefix="Answer:",
        ),
    },
    datasets={
        "demo": DataFile(path=HERE / "closed_book.jsonl", license="Apache-2.0"),
        "nq-open": HubDataset(
            id="google-research-datasets/nq_open",
            revision="5dd9790a83002ad084ddeb7c420dc716852c6f28",
            license="CC-BY-SA-3.0",
            language="en",
        ),
    },
    metrics=("exact_match", "f1"),
    output=Generate(max_new_tokens=32, parse=short_answer),
)

CUSTOMER_SERVICE = Task(
    name="qa/customer-service",
    version=1,
    summary="Answer a customer's question, from the company's notes where there are any.",
    fields={
        "question": Field(columns=(*QUESTION, "instruction", "customer")),
        "context": Field(columns=("notes", "policy", "knowledge"), required=False, truncatable=True),
    },
    references=("answer", "response", "answers.text", "answers"),
    prompts={
        "plain": Prompt(
            system="You work in customer service. You answer politely and briefly, and promise nothing that you do"
            " not know.",
            user="Notes: $context\n\nCustomer: $question",
            answer_prefix="Answer:",
        ),
    },
    datasets={
        "demo": DataFile(path=HERE / "customer_service.jsonl", license="Apache-2.0"),
        "bitext": HubDataset(
            id="bitext/Bitext-customer-support-llm-chatbot-training-dataset",
            revision="430d1a89bd93bd1fa23c16f29dd53e73f0087443",
            license="CDLA-Sharing-1.0",
            language="en",
        ),
    },
    metrics=("rouge", "chrf"),
    output=Generate(max_new_tokens=128),
)


@hookimpl
def register_tasks() -> list[Task]:
    """Return the question answering tasks, the one from a text first."""
    return [FROM_TEXT, CLOSED_BOOK, CUSTOMER_SERVICE]
