"""`lmtasks adapters show|merge`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmtasks.cli import arguments, options
from lmtasks.cli.results import write_table
from lmtasks.cli.terminal import facts, progress
from lmtasks.escaping import one_line

if TYPE_CHECKING:
    from lmtasks.models.adapter_files import Adapter

WIDTH = 8
"""Width of the names of facts."""


@click.group("adapters")
def command() -> None:
    """Show an adapter, or merge it into its model."""


@command.command("show")
@click.argument("adapter")
@options.json_option
@options.verbose_option
def show_adapter(adapter: str, as_json: bool) -> None:
    """Show an adapter: its task, its base model, its training and its scores."""
    from lmtasks import api

    shown = api.show_adapter(adapter)
    if as_json:
        result = {"adapter": shown.source, "weights_sha256": shown.sha256, "peft": dict(shown.config)}
        record = shown.record and shown.record.to_json()
        click.echo(json.dumps({**result, "lmtasks": record}, ensure_ascii=False, indent=2))
    else:
        click.echo(_as_text(shown))


@command.command("merge")
@click.argument("adapter")
@click.option(
    "-o",
    "--output",
    type=arguments.UserPath(),
    required=True,
    metavar="FOLDER",
    help="Folder of the merged model; it is created.",
)
@click.option("--model", metavar="MODEL", help="The base model.  [default: as the adapter records]")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Type of the merged weights.",
)
@click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the model.")
@options.verbose_option
def merge_adapter(adapter: str, output: Path, **settings: Any) -> None:
    """Add an adapter to the weights of its base: a model folder that transformers and --model load.

    \b
    lmtasks adapters merge adapters/dialogue -o models/dialogue
    lmtasks run summarization/dialogue --model models/dialogue
    """
    from lmtasks import api

    with progress() as on_progress:
        path = api.merge_adapter(adapter, output, on_progress=on_progress, **settings)
    click.echo(str(path))


def _as_text(adapter: Adapter) -> str:
    from lmtasks.reports.formats import duration
    from lmtasks.reports.view import compared_table

    config, record = adapter.config, adapter.record
    variants = "".join(f", {name[4:]}" for name in ("use_rslora", "use_dora") if config.get(name))
    targets = config.get("target_modules")
    values: dict[str, object] = {
        "adapter": adapter.source,
        "weights": f"sha256:{adapter.sha256}",
        "LoRA": f"rank {adapter.rank}, alpha {adapter.alpha:g}{variants}, on"
        f" {', '.join(sorted(targets)) if isinstance(targets, list) else targets}",
        "base": config.get("base_model_name_or_path"),
    }
    if record is None:
        return facts({**values, "trained": "outside lmtasks: task, prompt and base weights are not recorded"}, WIDTH)
    base, task, training, version = (
        record.base,
        record.task,
        record.training,
        record.environment.packages.get("lmtasks"),
    )
    values |= {
        "base": f"{base.name}, {base.revision}",
        "task": f"{task.name}, version {task.version}, prompt {record.prompt.name} ({record.prompt.form} form)",
        "created": f"{record.made} with lmtasks {version or '(version unknown)'}",
        "trained": f"on {training.examples} examples of {record.data.label} in {training.steps} steps,"
        f" {duration(training.seconds)}",
        "scored": f"on {record.evaluation.count} examples of {record.evaluation.label}",
    }
    parts = [facts(values, WIDTH)]
    if record.scores:
        parts.append(write_table(compared_table(record.scores, baseline="base", candidate="adapter", brief=True)))
    return "\n\n".join([*parts, *([one_line(record.verdict)] if record.verdict else [])])
