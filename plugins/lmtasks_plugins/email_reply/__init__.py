"""E-mail replies, given the e-mail, its subject, the points to make and the tone."""

from __future__ import annotations

from pathlib import Path

from lmtasks import DataFile, Field, Generate, Parameter, Prompt, Task, hookimpl

REPLY = Task(
    name="email-reply",
    version=1,
    summary="Reply to an e-mail, making given points in a given tone.",
    fields={
        "email": Field(columns=("body", "message", "text", "document"), truncatable=True),
        "subject": Field(columns=("title",), required=False),
        "points": Field(columns=("instructions", "key_points"), required=False),
        "tone": Field(columns=("style",), required=False),
    },
    references=("reply", "response", "answer"),
    prompts={
        "plain": Prompt(
            system="You write replies to e-mails, in the language of the e-mail.",
            user="Subject: $subject\n\n$email\n\n---\nWrite a reply to the e-mail above. Write only the reply.\n"
            "Say this: $points\nTone: $tone\nLength: at most $words words",
            answer_prefix="Reply:",
            example_separator="\n\n=====\n\n",
        ),
    },
    datasets={"demo": DataFile(path=Path(__file__).with_name("emails.jsonl"), license="Apache-2.0")},
    metrics=("rouge", "chrf"),
    output=Generate(max_new_tokens=192),
    parameters={
        "tone": Parameter(summary='of every reply, such as "formal", over what the data says'),
        "words": Parameter(type=int, minimum=1, summary="that a reply has at most"),
    },
)


@hookimpl
def register_tasks() -> list[Task]:
    """Return the task."""
    return [REPLY]
