"""`lmtasks data check FILE`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from lmtasks.cli import options
from lmtasks.cli.completion import complete_tasks
from lmtasks.cli.terminal import FAILED, facts, message, table
from lmtasks.options import DataOptions

if TYPE_CHECKING:
    from lmtasks.checks.data_file import DataCheck


@click.group("data")
def command() -> None:
    """Check data files."""


@command.command("check")
@click.argument("file", metavar="FILE")
@click.option("--task", required=True, metavar="TASK", shell_complete=complete_tasks, help="Task to check for.")
@options.setting(DataOptions, "split", "Split to check.", metavar="NAME", default="all")
@options.columns_option(DataOptions)
@options.language_option(DataOptions)
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
@options.json_option
@options.plugin_options
def check(file: str, task: str, strict: bool, as_json: bool, **settings: Any) -> int:
    """Check a data file for a task and report all problems at once; no model is loaded.

    Reports everything that `run`, `score` and `train` would. The exit code is 1 if one of them would refuse the file.

    \b
    lmtasks data check tickets.jsonl --task qa
    lmtasks data check tickets.csv --task qa --map context=body --strict
    """
    from lmtasks import api

    checked = api.check_data(file, task, **options.given(settings))
    click.echo(json.dumps(_as_json(checked), ensure_ascii=False, indent=2) if as_json else _as_text(checked))
    bad = ("error", "warning") if strict else ("error",)
    return FAILED if any(diagnostic.level in bad for diagnostic in checked.diagnostics) else 0


def _as_json(checked: DataCheck) -> dict[str, Any]:
    return {"ok": checked.ok, **asdict(checked)}


def _as_text(checked: DataCheck) -> str:
    valid = f"{checked.examples} valid examples in {checked.rows} rows"
    parts = [message(f"{checked.data} for {checked.task}: {valid}; {_verdict(checked)}")]
    if checked.fields:
        rows = [
            (name, summary.column or "-", summary.filled, summary.shortest, summary.median, summary.longest)
            for name, summary in checked.fields.items()
        ]
        header = ("field", "column", "filled", "shortest", "median", "longest (characters)")
        parts.append(table(header, rows, right=(2, 3, 4, 5)))
    values = {
        "splits": _counts(checked.splits),
        "languages": _counts(checked.languages),
        "references": ", ".join(f"{count} with {number}" for number, count in checked.references.items()),
        "no answer": str(checked.no_answer) if checked.no_answer else "",
        "unused": ", ".join(checked.other_columns),
    }
    parts.append(facts(values, 11))
    parts.append(
        "\n".join(message(f"{diagnostic.level:<8} {diagnostic.message}") for diagnostic in checked.diagnostics)
    )
    return "\n\n".join(part for part in parts if part)


def _verdict(checked: DataCheck) -> str:
    from lmtasks.data.diagnostics import COMMANDS

    if checked.ok:
        return "usable"
    errors = sum(diagnostic.count for diagnostic in checked.diagnostics if diagnostic.level == "error")
    counted = f"{errors} error{'s' if errors > 1 else ''}"
    if len(checked.refused_by) == len(COMMANDS):
        return f"{counted}: it would be refused"
    return f"{counted}: {' and '.join(checked.refused_by)} would refuse it"


def _counts(counted: Any) -> str:
    return ", ".join(f"{name or '(none)'} {count}" for name, count in counted.items())
