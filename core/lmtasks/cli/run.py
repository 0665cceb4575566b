"""`lmtasks run TASK...`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from lmtasks.cli import options
from lmtasks.cli.completion import complete_tasks
from lmtasks.cli.flags import flag
from lmtasks.cli.results import examples, score_lines
from lmtasks.cli.terminal import FAILED, print_errors, progress, say
from lmtasks.errors import LmtasksError
from lmtasks.escaping import one_line
from lmtasks.options import RunOptions

if TYPE_CHECKING:
    from lmtasks.runs import Run

SINGLE_TASK_OPTIONS = (
    "data",
    "split",
    "columns",
    "language",
    "prompt",
    "parameters",
    "metrics",
    "fewshot_data",
    "adapter",
)
"""Options that cannot be given for several tasks at once."""


@click.command("run")
@click.argument("tasks", nargs=-1, required=True, metavar="TASK[=ADAPTER]...", shell_complete=complete_tasks)
@options.inference_options
@options.adapter_option
@options.data_options(RunOptions)
@options.run_prompt_options
@options.generation_options
@options.run_options
@options.json_option
@options.plugin_options
def command(tasks: tuple[str, ...], model: str, as_json: bool, **settings: Any) -> int:
    """Run tasks on data with a model; write scores, a run folder and a report.

    Several tasks share one model in memory; TASK=ADAPTER gives a task its adapter. An interrupted run resumes when the
    same command is run again.

    \b
    lmtasks run summarization
    lmtasks run summarization/dialogue --data dialogues.jsonl --limit 50
    lmtasks run translation/en-zh --model gemma-3-270m --num-fewshot 5
    lmtasks run ./titles.yaml
    lmtasks run summarization/dialogue=adapters/dialogue qa=adapters/qa
    """
    from lmtasks import api

    if len(tasks) > 1:
        given = [name for name in SINGLE_TASK_OPTIONS if settings[name]]
        if given:
            instead = "write TASK=ADAPTER" if given[0] == "adapter" else "several tasks use their defaults"
            raise click.UsageError(f"{flag(given[0])} is for a single task: {instead}")
    named = [(name, adapter or None) for name, _, adapter in (task.partition("=") for task in tasks)]
    if settings["adapter"] and named[0][1]:
        raise click.UsageError(f"the adapter is given twice: {named[0][1]} and --adapter {settings['adapter']}")
    failures: list[LmtasksError] = []
    with progress() as on_progress:
        try:
            runs = api.run_all(
                named,
                RunOptions(**options.given(settings)),
                model=model,
                on_progress=on_progress,
                on_failure=failures.append,
            )
        except KeyboardInterrupt:
            unfinished = ", ".join(name for name, _ in named)
            say(f"run the same command again to resume {unfinished}")
            raise
    if not as_json:
        click.echo("\n\n".join(_as_text(run) for run in runs))
    if as_json:
        results = [_as_json(run) for run in runs]
        click.echo(json.dumps(results if len(runs) > 1 else results[0], ensure_ascii=False, indent=2))
    print_errors(failures)
    return FAILED if failures else 0


def _as_json(run: Run) -> dict[str, Any]:
    record = run.record.to_json()
    names = (
        "adapter", "scores", "output_checks", "intervals", "counts", "quantization_loss", "timings", "tokens",
        "peak_memory_bytes",
    )  # fmt: skip
    return {
        "run": str(run.path),
        "status": run.status,
        "error": run.record.error,
        "task": run.record.task.name,
        "model": run.record.model.name,
        "n": run.record.counts and run.record.counts.scored,
        **{name: record[name] for name in names},
    }


def _as_text(run: Run) -> str:
    from lmtasks.records.run import ModelRunRecord
    from lmtasks.reports.view import output_warnings, quantization_loss

    record = run.record
    adapter = record.adapter if isinstance(record, ModelRunRecord) else None
    loss = record.quantization_loss if isinstance(record, ModelRunRecord) else None
    model = record.model.name + (f" and {adapter.source}" if adapter else "")
    parts = [
        one_line(f"{record.task.name} with {model}: {examples(record.data.count)} of {record.data.label}"),
        score_lines(run.scores) if run.scores else one_line(f"no scores: {run.why_no_scores}"),
        record.counts and output_warnings(record.counts, run.output_checks),
        loss and f"quantized to int8: {quantization_loss(loss)}",
        one_line(f"report: {run.path / 'report.md'}"),
    ]
    return "\n\n".join(part for part in parts if part)
