"""`lmtasks plugins list`."""

from __future__ import annotations

import json

import click

from lmtasks.cli import options
from lmtasks.cli.terminal import complain, table


@click.group("plugins")
def command() -> None:
    """List plugins, and why a broken one is broken."""


@command.command("list")
@options.json_option
@options.verbose_option
def list_plugins(as_json: bool) -> None:
    """List the installed plugins with their tasks; broken ones say why."""
    from lmtasks.plugins import Registry

    registry = Registry()
    loaded, broken = registry.load_all()
    tasks = {plugin.found.name: ", ".join(plugin.tasks) or "-" for plugin in loaded}
    rows = []
    for name, found in registry.found.items():
        for plugin in found:
            rows.append(
                {
                    "plugin": name,
                    "distribution": plugin.distribution,
                    "version": plugin.version,
                    "module": plugin.module,
                    "status": "broken" if name in broken else "ok",
                    "tasks": tasks.get(name, "-"),
                    "error": str(broken[name]) if name in broken else None,
                }
            )
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    header = ("plugin", "distribution", "version", "status", "tasks")
    click.echo(table(header, [tuple(row[key] for key in header) for row in rows]))
    complain(broken.values())
