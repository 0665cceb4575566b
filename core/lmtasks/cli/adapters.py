"""`lmtasks adapters show|merge`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmtasks.cli import arguments, options
from lmtasks.cli.terminal import facts, progress, table
from lmtasks.escaping import one_line

if TYPE_CHECKING:
    from lmtasks.models.adapter_files import Adapter

WIDTH = 8
"""Characters of the longest name of a fact."""


@click.group("adapters")
def command() -> None:
    """Show an adapter, or merge it into its model."""


@command.command("show")
@click.argument("adapter")
@options.json_option
@options.verbose_option
def show_adapter(adapter: str, as_json: bool) -> None:
    """Say what an adapter is: its task, its base, how it was made and what it scored."""
    from lmtasks import api

    found = api.show_adapter(adapter)
    if as_json:
        result = {"adapter": found.source, "weights_sha256": found.sha256, "peft": dict(found.config)}
        click.echo(json.dumps({**result, "lmtasks": found.record}, ensure_ascii=False, indent=2))
    else:
        click.echo(_as_text(found))


@command.command("merge")
@click.argument("adapter")
@click.option(
    "-o",
    "--output",
    type=arguments.UserPath(),
    required=True,
    metavar="FOLDER",
    help="Of the merged model; it is made.",
)
@click.option("--model", metavar="MODEL", help="The base.  [default: as the adapter says]")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Of the merged weights.",
)
@click.option("--trust-remote-code", is_flag=True, help="Let code that comes with the model run.")
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
    from lmtasks.reports.values import duration, interval, number

    config, record = adapter.config, adapter.record
    kinds = "".join(f", {name[4:]}" for name in ("use_rslora", "use_dora") if config.get(name))
    targets = config.get("target_modules")
    values: dict[str, object] = {
        "adapter": adapter.source,
        "weights": f"sha256:{adapter.sha256}",
        "LoRA": f"rank {adapter.rank}, alpha {adapter.alpha:g}{kinds}, on"
        f" {', '.join(sorted(targets)) if isinstance(targets, list) else targets}",
        "base": config.get("base_model_name_or_path"),
    }
    if record is None:
        return facts(
            {**values, "made by": "something else than lmtasks: task, prompt and base weights are not recorded"}, WIDTH
        )
    task, base, training, data = record["task"], record["base"], record["training"], record["data"]
    evaluation, packages = record["evaluation"], record["environment"]["packages"]
    values |= {
        "base": f"{base['name']}, {base['revision']}",
        "task": f"{task['name']}, version {task['version']}, prompt {record['prompt']['name']}"
        f" ({record['prompt']['form']} form)",
        "made": f"{record['made']} with lmtasks {packages.get('lmtasks', '(version unknown)')}",
        "learned": f"{training['examples']} examples of {data['name']} in {training['steps']} steps,"
        f" {duration(training['seconds'])}",
        "scored": f"{evaluation['count']} examples of {evaluation['name']}",
    }
    rows = [
        (
            score["name"],
            number(score["first"], score["unit"]),
            number(score["second"], score["unit"]),
            interval(score["low"], score["high"], score["unit"], sign=True),
            "" if score["p_corrected"] is None else f"{score['p_corrected']:.4f}",
        )
        for score in record["scores"]
    ]
    parts = [facts(values, WIDTH)]
    if rows:
        parts.append(table(("score", "base", "adapter", "difference, 95%", "p, corrected"), rows, right=(1, 2, 4)))
    return "\n\n".join([*parts, *([one_line(record["verdict"])] if record["verdict"] else [])])
