"""`lmtasks show TASK`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lmtasks.cli import options
from lmtasks.cli.completion import complete_tasks
from lmtasks.cli.terminal import facts, progress
from lmtasks.escaping import one_line
from lmtasks.options import RunOptions

if TYPE_CHECKING:
    from lmtasks.task import Task


@click.command("show")
@click.argument("task", shell_complete=complete_tasks)
@options.inference_options
@options.data_options(RunOptions)
@options.run_prompt_options
@options.setting(RunOptions, "seed", "Seed of the few-shot draw.")
@options.plugin_options
def command(task: str, model: str, **settings: Any) -> None:
    """Show a task and the prompt of its first example as the model reads it, control tokens included."""
    from lmtasks import api

    with progress() as on_progress:
        shown = api.show(task, model=model, on_progress=on_progress, **options.given(settings))
    fields = [name if field.required else f"{name} (optional)" for name, field in shown.task.fields.items()]
    values = {
        "task": f"{shown.task.name}, version {shown.task.version}: {shown.task.summary}",
        "from": f"{shown.plugin.origin} ({shown.plugin.module})" if shown.plugin else "Python",
        "inputs": ", ".join(fields),
        "set": "; ".join(_parameter(shown.task, name) for name in shown.task.parameters),
        "prompts": ", ".join(shown.task.prompts),
        "data": ", ".join(shown.task.datasets),
        "metrics": ", ".join(metric if isinstance(metric, str) else metric.name for metric in shown.task.metrics),
        "language": shown.task.language or "detected from the references",
    }
    click.echo(facts(values, 9))
    prompt = one_line(f'prompt "{shown.prompt}" for {shown.model}, {shown.tokens} tokens:')
    click.echo(f"\n{prompt}\n")
    click.echo(shown.text)


def _parameter(task: Task, name: str) -> str:
    """Return name, value, choices and summary of a parameter in one line."""
    parameter = task.parameters[name]
    value = f"={task.parameter_values[name]}" if name in task.parameter_values else ""
    choices = f" ({', '.join(parameter.choices)})" if parameter.choices else ""
    return f"{name}{value}{choices}" + (f": {parameter.summary}" if parameter.summary else "")
