"""The public sets that first-party tasks name, read from local folders with the columns that they have on the hub.

No hub was reached where this was written: what is tested is that the columns, as cards and other people's code show
them, become the right fields and references.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet
import pytest

from lmtasks import HubDataset, Task
from lmtasks.data import DataRequest, Dataset, load_dataset
from lmtasks.plugins import Registry
from lmtasks_plugins.qa import XQUAD

TASKS = {
    task.name: task
    for plugin in Registry().load_all()[0]
    if plugin.discovered.distribution == "lmtasks"
    for task in plugin.tasks.values()
}
PUBLIC = [
    (task.name, name)
    for task in TASKS.values()
    for name, source in task.datasets.items()
    if isinstance(source, HubDataset)
]
PAIRS = ("en-zh", "zh-en", "de-en", "en-ja", "fr-de", "uk-cs")
"""Those that are read here: with English on either side, and without."""
READ = [(task, name) for task, name in PUBLIC if not task.startswith("translation") or task.endswith(PAIRS)]
DOCUMENT = Path(__file__).parents[2] / "docs" / "public-data.md"

SQUAD = {
    "id": "1",
    "title": "Ferries",
    "context": "The last ferry returns at six.",
    "question": "When does the last ferry return?",
    "answers": {"text": ["at six", "six"], "answer_start": [23, 26]},
}
NO_ANSWER = SQUAD | {"id": "2", "question": "Who steers it?", "answers": {"text": [], "answer_start": []}}
CHINESE = {
    "id": "DEV_0_QUERY_0",
    "context": "最后一班渡轮六点返回。",
    "question": "最后一班渡轮几点返回？",
    "answers": {"text": ["六点", "六点"], "answer_start": [6, 6]},
}
TALK = "#Person1#: When does the ferry leave?\n#Person2#: At nine."
ROWS: dict[str, tuple[str, list[dict[str, object]]]] = {
    "cnn-dailymail": (
        "test",
        [{"article": "(CNN)A ferry sank.", "highlights": "It sank.\nNobody hurt.", "id": "f0"}],
    ),
    "xsum": ("test", [{"document": "A ferry sank.", "summary": "Ferry sank.", "id": "38"}]),
    "samsum": ("test", [{"id": "13", "dialogue": "Ann: ferry?\r\nBob: nine", "summary": "The ferry leaves at nine."}]),
    "dialogsum": ("test", [{"id": "test_0_1", "dialogue": TALK, "summary": "Ann asks.", "topic": "ferry"}]),
    "aeslc": ("test", [{"email_body": "The ferry leaves at nine.", "subject_line": "Ferry"}]),
    "squad": ("validation", [SQUAD]),
    "squad-v2": ("validation", [SQUAD, NO_ANSWER]),
    "cmrc2018": ("test", [CHINESE]),
    "drcd": ("test", [CHINESE]),
    **{f"xquad-{language}": ("validation", [{k: v for k, v in SQUAD.items() if k != "title"}]) for language in XQUAD},
    "nq-open": ("validation", [{"question": "when does the ferry leave", "answer": ["at nine", "nine"]}]),
    "bitext": (
        "train",
        [
            {
                "flags": "B",
                "instruction": "cancel order {{Order Number}}",
                "category": "ORDER",
                "intent": "cancel_order",
                "response": "I can help you with that.",
            }
        ],
    ),
}
TEXTS = {
    "en": "A ferry.",
    "zh": "一艘渡轮。",
    "de": "Eine Fähre.",
    "fr": "Un ferry.",
    "es": "Un transbordador.",
    "ja": "フェリー。",
    "ko": "여객선.",
    "ru": "Паром.",
    "cs": "Trajekt.",
    "uk": "Пором.",
}
CODES = {  # ISO 639-3 and script, as in FLORES-200
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
TATOEBA = {"zh": "cmn"}  # where it differs


def rows_of(task: str, name: str, config: str | None) -> tuple[str, list[dict[str, object]]]:
    """Return a split and rows with the columns that the set has in this configuration."""
    if not task.startswith("translation"):
        return ROWS[name]
    source, target = task.removeprefix("translation/").split("-")
    if name == "flores":
        return "devtest", [{code: TEXTS[language] for language, code in CODES.items()}]
    if name == "multi30k":
        return "test", [{"en": TEXTS["en"], "de": TEXTS["de"]}]
    if name == "tatoeba":
        other = target if source == "en" else source
        assert config == f"{TATOEBA.get(other, CODES[other][:3])}-eng"
        return "test", [{"sentence1": TEXTS[other], "sentence2": TEXTS["en"]}]
    assert config in (f"{source}-{target}", f"{target}-{source}")
    split = "validation" if name == "wmt19" else "test"
    return split, [{"translation": {language: TEXTS[language] for language in config.split("-")}}]


def write(file: Path, rows: list[dict[str, object]]) -> None:
    file.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


Read = Callable[..., Dataset]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Read rows as the set that a task names, from a folder that is laid out like it."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def read(task: Task, name: str, split: str, rows: list[dict[str, object]]) -> Dataset:
        source = task.datasets[name]
        assert isinstance(source, HubDataset)
        folder = tmp_path / "set"
        write(folder / (source.config or "data") / f"{split}-00000-of-00001.parquet", rows)
        if source.config:
            # The hub's sets name their configurations in the head of README.md; JSON is YAML too.
            write(folder / "another" / f"{split}-00000-of-00001.parquet", [{"strange": "column"}])
            configs = [
                {"config_name": config, "data_files": [{"split": split, "path": f"{config}/{split}-*"}]}
                for config in ("another", source.config)
            ]
            folder.joinpath("README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
        local = dataclasses.replace(source, id=str(folder), revision=None)
        changed = task.with_settings({})
        object.__setattr__(changed, "datasets", {**task.datasets, name: local})
        return load_dataset(changed, DataRequest(data=name))

    return read


@pytest.mark.parametrize(("task", "name"), READ, ids=[f"{task}-{name}" for task, name in READ])
def test_public_set_columns_become_fields_and_references(task: str, name: str, read: Read):
    source = TASKS[task].datasets[name]
    assert isinstance(source, HubDataset)
    split, rows = rows_of(task, name, source.config)
    loaded = read(TASKS[task], name, split, rows)
    assert loaded.split == split
    first = loaded.examples[0]
    language = TASKS[task].language or first.language
    if task.startswith("translation"):
        wanted, target = task.removeprefix("translation/").split("-")
        assert first.inputs == {"text": TEXTS[wanted]}
        assert (first.references, language) == ((TEXTS[target],), target)
    elif task == "qa":
        assert first.inputs == {"context": rows[0]["context"], "question": rows[0]["question"]}
        assert first.references == tuple(rows[0]["answers"]["text"])
        assert language == {"cmrc2018": "zh", "drcd": "zh"}.get(name, name.partition("xquad-")[2] or "en")
        assert [example.references for example in loaded.examples[1:]] == [("",)] * (len(rows) - 1)
    else:
        inputs, references = {
            "cnn-dailymail": ({"document": "(CNN)A ferry sank."}, ("It sank.\nNobody hurt.",)),
            "xsum": ({"document": "A ferry sank."}, ("Ferry sank.",)),
            "samsum": ({"document": "Ann: ferry?\r\nBob: nine"}, ("The ferry leaves at nine.",)),
            "dialogsum": ({"document": TALK}, ("Ann asks.",)),
            "aeslc": ({"document": "The ferry leaves at nine."}, ("Ferry",)),
            "nq-open": ({"question": "when does the ferry leave"}, ("at nine", "nine")),
            "bitext": ({"question": "cancel order {{Order Number}}"}, ("I can help you with that.",)),
        }[name]
        assert (first.inputs, first.references, language) == (inputs, references, "en")


def test_public_set_rows_without_an_input_are_left_out_with_a_warning(read: Read, caplog: pytest.LogCaptureFixture):
    rows = [
        {"id": str(number), "dialogue": text, "summary": "s"} for number, text in enumerate(["one", None, " ", "two"])
    ]
    loaded = read(TASKS["summarization/dialogue"], "samsum", "test", rows)
    assert [example.id for example in loaded.examples] == ["0", "3"]
    [said] = [record.getMessage() for record in caplog.records if record.name == "lmtasks.data"]
    assert said.startswith('samsum: 2 of 4 rows skipped, which have no "document" (first: hub:')
    assert said.endswith("split test, row 2)")


def test_public_sets_are_pinned_licensed_and_documented():
    table = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            task, name, id, revision, _, license = [cell.strip() for cell in line.strip("|").split(" | ")]
            table[re.findall("`(.*?)`", task)[0], re.findall("`(.*?)`", name)[0]] = (id, revision, license)
    known = {}
    for task, name in PUBLIC:
        source = TASKS[task].datasets[name]
        assert isinstance(source, HubDataset) and re.fullmatch("[0-9a-f]{40}", source.revision or "")
        plugin = task.partition("/")[0] if task.startswith("translation") else task
        key = (plugin, re.sub(r"^xquad-\w\w$", "xquad-ar", name))
        known[key] = (f"`{source.id}`", f"`{source.revision}`", source.license)
    assert table == known
