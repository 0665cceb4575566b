"""Reports and model cards keep their structure, whatever the names and texts that they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import lmtasks
from lmtasks import Example, Run, RunOptions, Sample, Task, markdown
from lmtasks.escaping import one_line
from lmtasks.records.adapter import AdapterRecord
from lmtasks.records.reading import validate
from lmtasks.records.run import ModelRunRecord
from lmtasks.reports import markdown_report, write_card
from lmtasks.testing import FakeModel

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
OURS = {"text", "text_special", "code_inline", "strong_open", "strong_close", "softbreak", "image"}
"""What may stand within a line: no link, no HTML, no emphasis but a verdict's, no picture but the learning curve."""
SCORE = {
    "name": "rouge1", "baseline": 1.0, "candidate": 2.0, "difference": 1.0, "low": 0.5, "high": 1.5, "unit": "0-100",
    "n": 3, "higher_is_better": True, "p_bootstrap": 0.01, "smallest_p": 0.01, "p_randomization": 0.01,
    "p_corrected": 0.02, "outcome": "better", "language": "en", "signature": "rouge1|v:1",
}  # fmt: skip
DATA = {
    "name": "train.jsonl", "split": "train", "sha256": "0" * 64, "file_sha256": "1" * 64, "count": 3, "limit": None,
    "columns": {}, "language": None,
}  # fmt: skip
TRAINING = {
    "schema": 2, "made": "2026-11-28", "weights_sha256": "2" * 64, "before": "before", "after": "after",
    "verdict": "The adapter is better.", "scores": [SCORE, SCORE],
    "output_checks": [], "data": DATA, "evaluation": DATA,
    "task": {
        "name": "qa", "version": 1, "plugin": None, "distribution": None, "distribution_version": None,
        "parameters": {},
    },
    "prompt": {"name": "plain", "form": "chat", "sha256": "3" * 64, "chat_template": None},
    "base": {
        "name": "base", "source": "folder", "revision": "sha256:0", "architecture": "llama", "parameters": 100,
        "dtype": "float32", "device": "cpu",
    },
    "environment": {"python": "3.11", "platform": "Linux", "cpu_count": 2, "packages": {"lmtasks": "1"}, "git": None},
    "training": {
        "examples": 3, "skipped": 1, "overlap_removed": 1, "truncated": 1, "steps": 2, "planned_steps": 2,
        "epochs": 1.0,
        "seconds": 1.0, "best_step": 2, "validation_loss": 1.5, "validation_examples": 1,
        "tokens": 30, "processes": 1, "packed": True,
        "resumed_at": None, "trainable_weights": 100, "history": [], "micro_batches": 1,
    },
    "settings": {
        "data": "train.jsonl", "split": None, "limit": None, "columns": {}, "language": None, "eval_data": None,
        "eval_split": None, "eval_limit": None, "prompt": None, "parameters": {}, "chat_template_kwargs": {},
        "chat_template_date": None, "metrics": None, "max_new_tokens": None, "validation": None, "epochs": None,
        "max_steps": None, "max_minutes": None, "gradient_accumulation": None, "gradient_checkpointing": False,
        "early_stopping": None, "on_overlong": "error", "device": "cpu", "dtype": "float32",
        "trust_remote_code": False, "report_to": [], "rslora": True, "dora": False, "batch_tokens": None,
        "batch_size": 8, "rank": 16, "alpha": 32.0, "dropout": 0.0,
        "target_modules": ["q_proj", "v_proj"], "optimizer": "adamw", "learning_rate": 5e-4, "schedule": "cosine",
        "warmup": 0.05, "weight_decay": 0.0, "max_grad_norm": 1.0, "max_length": 100, "seed": 0,
    },
}  # fmt: skip
NOT_TEXT = ("status", "unit", "backend", "quantize", "output_checks")
"""Of a record: read by lmtasks for what it means, never shown as it is."""

NASTY = (
    "<script>alert(1)</script>", "\r# heading", "\n# heading", "\u2028# heading", "\x0b\x0c\x85# heading", "a`b``c```",
    "`",     "| a | b |", "a\\|b", "\\", "\\`", "---\n# x", "a\n---\nb: c", "x: [y", "===",
    "- x", "1. x", "[x](javascript:alert(1))", "![x](y)",
    "[x]: y",     "<!--", "&lt;script&gt;", "    code", "> quote", "*x* _x_ __x__ ~~x~~ $x$", "<a@b.c>",
    "<http://x>", "# x #", " ",
    "", "\t", "\x1b]0;x\x07", "\ud800", "````\n~~~\n", "\n\n\n# x", "\\\\|", "x \\", "**", "_",
)  # fmt: skip
texts = st.one_of(
    st.sampled_from(NASTY),
    st.text(
        st.one_of(st.characters(), st.sampled_from("`|#<>*_[]()!&;\\~$-+=\n\r\t \x0b\x0c\x85\u2028\x1b:/@\"'1.x")),
        max_size=30,
    ),
)


def blocks(text: str) -> list[str]:
    """Return the kinds of the blocks of Markdown, tables' cells included."""
    return [token.type for token in PARSER.parse(text)]


def spans(text: str) -> Iterator[str]:
    """Return the kinds of what stands within lines."""
    for token in PARSER.parse(text):
        yield from (child.type for child in token.children or ())


def replaced(value: Any, text: str, name: str = "") -> Any:
    """Return a record whose every text is this one."""
    if name in NOT_TEXT:
        return value
    if isinstance(value, dict):
        return {key: replaced(part, text, key) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [replaced(part, text) for part in value]
    return text if isinstance(value, str) else value


class StoredRun(Run):
    """A run whose record and samples are what the test says."""

    def __init__(self, record: ModelRunRecord, samples: list[Sample]) -> None:
        self.path, self.record, self._samples = Path("runs/x"), record, samples

    @property
    def samples(self) -> list[Sample]:
        return self._samples


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with examples in the prompt, scores, and all that a report can tell."""
    examples = [Example(id=str(n), inputs={"text": f"number {n}"}, references=(f"answer {n}",)) for n in range(6)]
    task = Task(
        name="echo",
        version=1,
        summary="Echo.",
        fields={"text": lmtasks.Field()},
        prompts={"plain": "Say $text"},
        datasets={"demo": lambda split: iter(examples[:3] if split == "test" else examples[3:])},
        metrics=("exact_match", "chrf"),
    )
    model = FakeModel(lambda prompt: f" answer {prompt.split()[-1]}")
    done = lmtasks.run(
        task, RunOptions(num_fewshot=2, output_dir=tmp_path_factory.mktemp("runs")), model=model
    )  # fmt: skip
    assert done.record.prompt.fewshot.ids
    return done


def run_with_text(run: Run, text: str) -> StoredRun:
    """Return that run with one text in place of all."""
    record = run.record.to_json() | {"training": TRAINING, "error": "It failed."}
    samples = [
        Sample(
            index=sample.index,
            id=text,
            inputs={text: text},
            references=(text,),
            prediction=text,
            completion=text,
            finish_reason=text,
        )
        for sample in run.samples
    ]
    record = replaced(record, text)
    record["task"]["parameters"] = {text: text}
    return StoredRun(validate(ModelRunRecord, record), samples)


def with_nasty_texts(test: Callable[..., None]) -> Callable[..., None]:
    """Try a test with every nasty text, too."""
    for text in NASTY:
        test = example(text=text)(test)
    return test


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(text=texts)
@with_nasty_texts
def test_report_structure_does_not_depend_on_texts(run, text):
    report = markdown_report(run_with_text(run, text))
    if text:  # a list leaves out what is empty
        assert blocks(report) == blocks(markdown_report(run_with_text(run, "plain")))
    assert set(spans(report)) <= OURS
    assert list(spans(report)).count("image") == 1
    assert blocks(report).count("heading_open") == 11


def test_report_shows_example_ids_as_text(tmp_path):
    # A lone CR ends a line in Markdown, though not in Python's split("\n").
    examples = [
        Example(id=f"{n}\r# evil\r\r<script>alert(1)</script>", inputs={"text": f"t {n}"}, references=("r",))
        for n in range(4)
    ]
    task = Task(
        name="echo",
        version=1,
        summary="Echo.",
        fields={"text": lmtasks.Field()},
        prompts={"plain": "Say $text"},
        datasets={"demo": lambda split: iter(examples[:2] if split == "test" else examples[2:])},
        metrics=("chrf",),
    )
    done = lmtasks.run(task, RunOptions(num_fewshot=2, output_dir=tmp_path), model=FakeModel(lambda prompt: "a"))
    report = (done.path / "report.md").read_bytes().decode("utf-8")
    headings = [
        PARSER.parse(report)[n + 1].content for n, kind in enumerate(blocks(report)) if kind == "heading_open"
    ]  # fmt: skip
    assert [heading for heading in headings if "evil" in heading] == [
        "`0\\r# evil\\r\\r<script>alert(1)</script>`", "`1\\r# evil\\r\\r<script>alert(1)</script>`"
    ]  # fmt: skip
    assert "html_inline" not in spans(report)


@pytest.mark.parametrize("name", ["a`b.jsonl", "<script>alert(1)</script>.jsonl", "x\r# evil.jsonl"])
def test_report_shows_file_names_as_text(tmp_path, name):
    data = tmp_path / name.replace("/", "_")
    data.write_text('{"text": "t", "references": ["r"]}\n')
    task = Task(
        name="echo",
        version=1,
        summary="Echo.",
        fields={"text": lmtasks.Field()},
        prompts={"plain": "$text"},
        datasets={"demo": lambda split: iter(())},
        metrics=("chrf",),
    )
    options = RunOptions(data=str(data), output_dir=tmp_path / "runs")
    done = lmtasks.run(task, options, model=FakeModel(lambda prompt: "a"))
    report = (done.path / "report.md").read_bytes().decode("utf-8")
    assert set(spans(report)) <= OURS
    assert blocks(report).count("heading_open") == 7  # title, five sections, one sample
    shown = data.name.replace("\r", "\\r")
    codes = [child.content for token in PARSER.parse(report) for child in token.children or ()]
    assert any(content.endswith(shown) for content in codes)


# The model card


def card(folder: Path, text: str | None) -> tuple[dict[str, Any], str]:
    """Return the front matter and the body of a card in which every text is this one; None: as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    write_card(folder, validate(AdapterRecord, TRAINING if text is None else replaced(TRAINING, text)))
    written = (folder / "README.md").read_bytes().decode("utf-8")
    assert written.startswith("---\n")
    front, body = written[4:].split("\n---\n", 1)
    return yaml.safe_load(front), body


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts)
@with_nasty_texts
def test_model_card_structure_does_not_depend_on_texts(tmp_path, text):
    front, body = card(tmp_path / "adapter", text)
    plain, plain_body = card(tmp_path / "adapter", None)
    assert front.keys() == plain.keys()
    assert front["base_model"] == one_line(text)
    assert blocks(body) == blocks(plain_body)
    assert set(spans(body)) <= OURS


@pytest.mark.parametrize(
    "name", ["a`b", "```", "<script>", "a|b", "x\r# evil", "x\n---\n# evil", 'a"b', "a: b", "$(x)", "a\udcffb"]
)
def test_model_card_shows_folder_name_as_text(tmp_path, name):
    front, body = card(tmp_path / name, None)
    assert front["model-index"][0]["name"] == one_line(name)
    assert blocks(body) == blocks(card(tmp_path / "plain", None)[1])
    assert set(spans(body)) <= OURS


# The functions


@pytest.mark.parametrize("text", [text for text in NASTY if text.strip() and text.isprintable()])
def test_markdown_escapes_text(text):
    def shown(source: str) -> str:
        [_, line, _] = PARSER.parse(source)
        return "".join(child.content for child in line.children or ())

    assert shown(f"x {markdown.inline(text)}") == f"x {text.strip()}"
    assert shown(markdown.paragraph(text)) == text.strip()
    assert shown(markdown.code(text)) == text
    rows = PARSER.parse(markdown.table(("a", "b"), [(text, text)], spans=(1,)))
    cells = ["".join(child.content for child in token.children) for token in rows if token.type == "inline"]
    assert cells[2:] == [text.strip(), text.strip() if "\\" in text else text]
    [block] = PARSER.parse(markdown.fenced(text))
    assert block.content == f"{text}\n"


@pytest.mark.parametrize(
    "text", ["exact_match", "2.50", "-1", "a-b_c", "stop ['\\n\\n']", "hub:a/b#c", "en & de", "it's > 3"]
)
def test_markdown_does_not_escape_ordinary_text(text):
    assert markdown.inline(text) == text
