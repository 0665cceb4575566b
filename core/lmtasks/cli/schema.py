"""`lmtasks schema task|run|sample|adapter`."""

from __future__ import annotations

import json
from typing import Any

import click


@click.command("schema")
@click.argument("kind", type=click.Choice(["task", "run", "sample", "adapter"]))
def command(kind: str) -> None:
    """Print the JSON Schema of a file: for editors that complete and check, and for programs that read results.

    \b
    task      a task in YAML
    run       run.json of a run folder
    sample    a line of samples.jsonl
    adapter   lmtasks.json of an adapter
    """
    click.echo(json.dumps(_schema(kind), ensure_ascii=False, indent=2))


def _schema(kind: str) -> dict[str, Any]:
    if kind == "task":
        from lmtasks.plugins.yaml_schema import task_schema

        return task_schema()
    if kind == "run":
        from lmtasks.records.run import run_json_schema

        return run_json_schema()
    if kind == "sample":
        from lmtasks.records.sample import SampleRecord

        return SampleRecord.model_json_schema()
    from lmtasks.records.adapter import AdapterRecord

    return AdapterRecord.model_json_schema()
