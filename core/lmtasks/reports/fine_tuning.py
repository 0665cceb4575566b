"""Sections of a report on the training of its adapter, and on the scores of the base model."""

from __future__ import annotations

from lmtasks import markdown
from lmtasks.records.adapter import AdapterRecord
from lmtasks.reports.facts import training_facts
from lmtasks.reports.learning_curve import CURVE
from lmtasks.reports.view import CHECKS, Table, compared_table, nonzero


def fine_tuning_sections(record: AdapterRecord) -> list[str]:
    """Return the sections on an adapter's training."""
    sections = ["## Before and after fine-tuning"]
    if record.scores:
        sections += [
            f"The base model was scored in {markdown.code(str(record.before))}, the adapter here, on the same examples."
            " p: paired approximate randomization; corrected by Holm. Interval of the difference: paired bootstrap.",
            write_table(compared_table(record.scores, baseline="base", candidate="adapter")),
            f"**{markdown.paragraph(record.verdict)}**",
        ]
        if checks := nonzero(record.output_checks):
            sections.append(write_table(compared_table(checks, baseline="base", candidate="adapter", labels=CHECKS)))
    else:
        sections.append(markdown.paragraph(record.verdict))
    return [*sections, "## Fine-tuning", f"![loss by step]({CURVE})", markdown.facts(training_facts(record))]


def write_table(table: Table) -> str:
    """Return a table in Markdown."""
    return markdown.table(table.header, table.rows, right=table.right, spans=table.code)
