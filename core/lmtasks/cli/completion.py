"""`lmtasks completion SHELL`, and what it completes beside commands and flags."""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class

VARIABLE = "_LMTASKS_COMPLETE"
"""By which the shell asks; click answers before any command is run."""


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Write what makes a shell complete commands, flags, tasks and plugins.

    \b
    bash   echo 'eval "$(lmtasks completion bash)"' >> ~/.bashrc
    zsh    echo 'eval "$(lmtasks completion zsh)"' >> ~/.zshrc
    fish   lmtasks completion fish > ~/.config/fish/completions/lmtasks.fish
    """
    found = get_completion_class(shell)
    if found is None:  # click knows all three
        raise click.UsageError(f"click does not know {shell}")
    click.echo(found(ctx.find_root().command, {}, "lmtasks", VARIABLE).source())


def complete_tasks(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a task's name: plugins by their metadata, and the variants of the one that is written out.

    No more is imported than that plugin; one that is broken has none. Files are the shell's to complete.
    """
    from lmtasks.errors import LmtasksError
    from lmtasks.plugins import Registry

    registry = Registry()
    name, slash, _ = incomplete.partition("/")
    if not slash:
        found = [CompletionItem(other) for other in registry.discovered if other.startswith(incomplete)]
        if [item.value for item in found] != [incomplete]:
            return found or [CompletionItem(incomplete, type="file")]
    if name not in registry.discovered:
        return [CompletionItem(incomplete, type="file")]
    try:
        tasks = registry.load(name).tasks
    except LmtasksError:
        return []
    return [CompletionItem(task, help=found.summary) for task, found in tasks.items() if task.startswith(incomplete)]


def complete_plugins(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a plugin's name, without importing any, or a file's."""
    from lmtasks.plugins import find_plugins

    return _beginning(find_plugins(), incomplete)


def complete_models(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a model of the catalogue, or a file's."""
    from lmtasks.models.catalog import CATALOG

    return _beginning(CATALOG, incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]
