"""`lmtasks run TASK...`."""

from __future__ import annotations

import json
from typing import Any

import click

from lmtasks.cli import options
from lmtasks.cli.results import examples, remarks_line, score_lines
from lmtasks.cli.terminal import progress

OF_ONE_TASK = ("data", "split", "columns", "language", "prompt", "metrics", "fewshot_data")


@click.command("run")
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
@options.model_options
@options.data_options
@options.prompt_options
@options.generation_options
@options.run_options
@options.json_option
@options.verbose_option
def command(tasks: tuple[str, ...], model: str, as_json: bool, **settings: Any) -> None:
    """Run tasks over data with a model: scores, run folder, report.

    A task that was interrupted goes on where it stopped when it is run again.

    \b
    lmtasks run summarization
    lmtasks run summarization/dialogue --data dialogues.jsonl --limit 50
    lmtasks run translation/en-zh --model gemma-3-270m --num-fewshot 5
    """
    from lmtasks import api
    from lmtasks.runs.options import RunOptions

    if len(tasks) > 1:
        given = [name for name in OF_ONE_TASK if settings[name]]
        if given:
            flag = "--map" if given[0] == "columns" else f"--{given[0].replace('_', '-')}"
            raise click.UsageError(f"{flag} belongs to one task: with several, each takes its own")
    chosen = RunOptions(**settings)
    with progress() as on_progress:
        # All of them first: bad data of the last task is found before the first one runs.
        plans = [api.plan_run(task, chosen) for task in tasks]
        loaded = api.load_model(model, chosen, on_progress=on_progress)
        runs = []
        for plan in plans:
            try:
                runs.append(api.run_planned(plan, loaded, on_progress=on_progress))
            except KeyboardInterrupt:
                click.echo(f"lmtasks: {plan.task.name} goes on where it stopped when it is run again", err=True)
                raise
            if not as_json:
                click.echo(_as_text(runs[-1]) + ("" if plan is plans[-1] else "\n"))
    if as_json:
        results = [_as_json(run) for run in runs]
        click.echo(json.dumps(results if len(runs) > 1 else results[0], ensure_ascii=False, indent=2))


def _as_json(run: Any) -> dict[str, Any]:
    record = run.record
    return {
        "run": str(run.path),
        "task": record["task"]["name"],
        "model": record["model"]["name"],
        "n": record["counts"]["scored"],
        "scores": record["scores"],
        "health": record["health"],
        "intervals": record["intervals"],
        "counts": record["counts"],
        "timings": record["timings"],
        "tokens": record["tokens"],
        "peak_memory_bytes": record["peak_memory_bytes"],
    }


def _as_text(run: Any) -> str:
    record = run.record
    counts, data = record["counts"], record["data"]
    split = f" ({data['split']})" if data["split"] else ""
    parts = [
        f"{record['task']['name']} with {record['model']['name']}: {examples(data['count'])} of {data['name']}{split}",
        score_lines(run.scores) if run.scores else f"no scores: {run.why_no_scores}",
        remarks_line(counts, run.health),
        f"report: {run.path / 'report.md'}",
    ]
    return "\n\n".join(part for part in parts if part)
