"""`lmtasks completion SHELL`, and completion of task, plugin and model names."""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class

VARIABLE = "_LMTASKS_COMPLETE"
"""Environment variable by which the shell asks for completions; click answers before any command runs."""


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print a shell completion script for commands, flags, tasks and plugins.

    \b
    bash   echo 'eval "$(lmtasks completion bash)"' >> ~/.bashrc
    zsh    echo 'eval "$(lmtasks completion zsh)"' >> ~/.zshrc
    fish   lmtasks completion fish > ~/.config/fish/completions/lmtasks.fish
    """
    complete = get_completion_class(shell)
    if complete is None:  # click knows all three
        raise click.UsageError(f"click does not know {shell}")
    click.echo(complete(ctx.find_root().command, {}, "lmtasks", VARIABLE).source())


def complete_tasks(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a task name: plugins from their metadata, then the variants of the plugin that is named.

    Only that plugin is imported; a broken one has no completions. The shell completes file names.
    """
    from lmtasks.errors import LmtasksError
    from lmtasks.plugins import Registry

    registry = Registry()
    name, slash, _ = incomplete.partition("/")
    if not slash:
        plugins = [CompletionItem(other) for other in registry.discovered if other.startswith(incomplete)]
        if [item.value for item in plugins] != [incomplete]:
            return plugins or [CompletionItem(incomplete, type="file")]
    if name not in registry.discovered:
        return [CompletionItem(incomplete, type="file")]
    try:
        tasks = registry.load(name).tasks
    except LmtasksError:
        return []
    return [CompletionItem(name, help=task.summary) for name, task in tasks.items() if name.startswith(incomplete)]


def complete_plugins(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a plugin, without importing any, or of a file."""
    from lmtasks.plugins import find_plugins

    return _beginning(find_plugins(), incomplete)


def complete_models(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a model of the catalog, or of a file."""
    from lmtasks.models.catalog import CATALOG

    return _beginning(CATALOG, incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    items = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return items or [CompletionItem(incomplete, type="file")]
