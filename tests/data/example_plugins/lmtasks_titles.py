"""Give a paragraph a title: a complete lmtasks plugin in one file."""

import json
from collections.abc import Iterator
from pathlib import Path

from lmtasks import DataFunction, Example, Generate, Task, hookimpl

DATA = Path(__file__).with_name("titles.jsonl")  # a line: {"id", "split", "text", "title"}


def paragraphs(split: str) -> Iterator[Example]:
    for line in DATA.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["split"] == split:
            yield Example(id=row["id"], inputs={"text": row["text"]}, references=(row["title"],))


TITLES = Task(
    name="titles",
    version=1,
    summary="Give a paragraph a title.",
    fields=["text"],
    prompts={"plain": "$text\n\nWrite a title of at most eight words for the paragraph above."},
    datasets={"demo": DataFunction(read=paragraphs, license="CC0-1.0")},
    metrics=["rouge", "chrf"],
    output=Generate(max_new_tokens=24, parse=lambda completion: completion.strip().partition("\n")[0].strip('"')),
)


@hookimpl
def register_tasks() -> list[Task]:
    return [TITLES]
