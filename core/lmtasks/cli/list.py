"""`lmtasks list`."""

from __future__ import annotations

import json

import click

from lmtasks.cli import options
from lmtasks.cli.terminal import SLOW, print_errors, say, table


@click.command("list")
@options.json_option
@options.plugin_options
def command(as_json: bool) -> None:
    """List the tasks of all plugins."""
    from lmtasks.plugins import Registry

    loaded, broken = Registry().load_all()
    tasks = [(task, plugin.discovered) for plugin in loaded for task in plugin.tasks.values()]
    if as_json:
        rows = [
            {
                "task": task.name,
                "summary": task.summary,
                "version": task.version,
                "plugin": source.name,
                "distribution": source.distribution,
                "distribution_version": source.version,
                "prompts": list(task.prompts),
                "datasets": list(task.datasets),
            }
            for task, source in tasks
        ]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
    else:
        click.echo(
            table(("task", "summary", "from"), [(task.name, task.summary, source.origin) for task, source in tasks])
        )
    print_errors(broken.values())
    for plugin in loaded:
        if plugin.seconds > SLOW:
            say(f'plugin "{plugin.discovered.name}" took {plugin.seconds:.1f} s to import')
