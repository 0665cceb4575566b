"""The Markdown report of a run, made from its folder alone."""

from __future__ import annotations

from collections.abc import Sequence

from lmtasks import markdown
from lmtasks.errors import RunError
from lmtasks.files import atomic_write
from lmtasks.records.adapter import AdapterRecord
from lmtasks.records.run import ModelRunRecord, OutputsRunRecord
from lmtasks.reports.facts import output_facts, provenance
from lmtasks.reports.fine_tuning import fine_tuning_sections, write_table
from lmtasks.reports.learning_curve import CURVE, write_learning_curve
from lmtasks.reports.view import check_table, score_table
from lmtasks.runs import Run
from lmtasks.task import Sample

SHOWN_SAMPLES = 5
MAX_QUOTE = 600
"""Characters of a text that a report quotes."""
FILE = "report.md"


def write_report(run: Run) -> None:
    """Write report.md into a run folder.

    Raises:
        RunError: the run is damaged, or the folder cannot be written.
    """
    report = markdown_report(run)
    if training := _training(run.record):
        write_learning_curve(run.path / CURVE, training.training)
    try:
        atomic_write(run.path / FILE, report.encode("utf-8", "replace"))
    except OSError as error:
        raise RunError(f"{run.path / FILE}: cannot be written ({error})") from error


def markdown_report(run: Run) -> str:
    """Return the report of a run: scores, outputs, speed, provenance, and some samples."""
    record, training = run.record, _training(run.record)
    parts = [
        f"# {markdown.inline(record.task.name)} with {markdown.inline(record.model.name)}"
        + (" and an adapter" if isinstance(record, ModelRunRecord) and record.adapter else ""),
        _summary(record),
        "## Scores",
        write_table(score_table(run.scores, signatures=True)) if run.scores else _no_scores(run),
        *(fine_tuning_sections(training) if training else []),
        "## Outputs",
        "\n".join(f"- {markdown.inline(line)}" for line in output_facts(record)) or "None yet.",
        *(["## Output checks", write_table(check_table(run.output_checks))] if run.output_checks else []),
        "## Provenance",
        markdown.facts(provenance(record)),
        "## Samples",
        *_samples(run.samples),
    ]
    return "\n\n".join(parts) + "\n"


def _training(record: ModelRunRecord | OutputsRunRecord) -> AdapterRecord | None:
    return record.training if isinstance(record, ModelRunRecord) else None


def _no_scores(run: Run) -> str:
    return (
        f"No scores: {markdown.inline(run.why_no_scores)}."
        if run.status == "finished"
        else "None: the run has not finished."
    )


def _summary(record: ModelRunRecord | OutputsRunRecord) -> str:
    data = record.data
    split = markdown.inline(f', split "{data.split}"') if data.split else ""
    source = ", outputs made elsewhere"
    if isinstance(record, ModelRunRecord):
        source = f", prompt {markdown.code(record.prompt.name)} ({markdown.inline(record.prompt.form)} form)"
    text = (
        f"{data.count} examples of {markdown.code(data.name)}{split}{source},"
        f" {markdown.inline(record.started)}. Status: {markdown.inline(record.status)}."
    )
    return f"{text}\n\nError: {markdown.inline(record.error)}" if record.error else text


def _samples(samples: Sequence[Sample]) -> list[str]:
    # Evenly over the data, so that a sorted file does not show one kind alone.
    step = max(1, len(samples) // SHOWN_SAMPLES)
    parts = []
    for sample in samples[::step][:SHOWN_SAMPLES]:
        parts.append(f"### {markdown.code(sample.id)}")
        parts += [f"{markdown.paragraph(name)}:\n\n{_quote(text)}" for name, text in sample.inputs.items()]
        ended = "" if sample.finish_reason == "unknown" else f" ({markdown.inline(sample.finish_reason)})"
        if sample.reasoning:
            parts.append(f"reasoning ({sample.reasoning_tokens} tokens):\n\n{_quote(sample.reasoning)}")
        parts.append(f"prediction{ended}:\n\n{_quote(sample.prediction)}")
        parts += [f"reference:\n\n{_quote(text)}" for text in sample.references[:1]]
    return parts


def _quote(text: str) -> str:
    short = text if len(text) <= MAX_QUOTE else f"{text[:MAX_QUOTE]} [...]"
    return markdown.indented(short)
