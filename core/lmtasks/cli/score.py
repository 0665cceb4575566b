"""`lmtasks score TASK --predictions FILE` and `lmtasks score RUN`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from lmtasks.cli import options
from lmtasks.cli.results import examples, score_lines
from lmtasks.cli.terminal import FAILED, print_errors
from lmtasks.escaping import one_line
from lmtasks.options import ScoreOptions

if TYPE_CHECKING:
    from lmtasks.runs.rescore import Scored


@click.command("score")
@click.argument("target", metavar="TASK|RUN")
@options.setting(
    ScoreOptions,
    "predictions",
    "File of outputs for TASK: JSONL, CSV, TSV or Parquet, matched by id; any other file has one output a line, in"
    " order. All but Parquet may be compressed (.gz, .zst, .bz2, .xz).",
    metavar="FILE",
)
@options.data_options(ScoreOptions)
@options.setting(
    ScoreOptions,
    "references",
    "Column of the data with the references.",
    metavar="COLUMN",
    default="references, else as the task knows it",
)
@options.limit_option(ScoreOptions)
@options.metrics_option(ScoreOptions, "the task's, or the run's")
@options.resampling_options
@options.output_dir_option(ScoreOptions, "Write a run folder here, for `lmtasks compare`.", "none")
@options.json_option
@options.plugin_options
def command(target: str, as_json: bool, **settings: Any) -> int:
    """Score outputs that were made elsewhere, or a finished run again; no model is loaded.

    \b
    lmtasks score translation/en-zh --data test.jsonl --predictions system.txt
    lmtasks score qa --data dev.jsonl --predictions answers.jsonl --json
    lmtasks score runs/20261123-162741-summarization-smollm2-135m-instruct --metrics rouge:nostem
    """
    from lmtasks import api
    from lmtasks.errors import LmtasksError

    failures: list[LmtasksError] = []
    scored = api.score(target, on_failure=failures.append, **options.given(settings))
    if failures and not scored.scores:
        raise failures[0]
    _print(scored, as_json=as_json, again=not settings["predictions"])
    print_errors(failures)
    return FAILED if failures else 0


def _print(scored: Scored, *, as_json: bool, again: bool) -> None:
    from lmtasks.reports.view import output_warnings

    record = scored.record
    if as_json:
        values = record.to_json()
        kept = ("task", "data", "model", "metrics", "scores", "output_checks", "intervals", "counts")
        result = {"run": str(scored.path) if scored.path else None, **{name: values[name] for name in kept}}
        click.echo(json.dumps(result, ensure_ascii=False, indent=2))
        return
    remark = " (the scores in it are not changed)" if again else ""
    source = f"{record.task.name}, outputs of {record.model.name}"
    parts = [
        one_line(f"{source}: {examples(record.data.count)} of {record.data.label}"),
        score_lines(scored.scores) if scored.scores else "no scores: the data has no references",
        record.counts and output_warnings(record.counts, scored.output_checks),
        one_line(f"run: {scored.path}{remark}") if scored.path else "",
    ]
    click.echo("\n\n".join(part for part in parts if part))
