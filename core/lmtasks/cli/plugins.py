"""`lmtasks plugins list|new|check`."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lmtasks.cli import arguments, options
from lmtasks.cli.completion import complete_plugins
from lmtasks.cli.terminal import FAILED, SLOW, message, print_errors, show_traceback, table
from lmtasks.escaping import one_line

if TYPE_CHECKING:
    from lmtasks.api import CheckResult


@click.group("plugins")
def command() -> None:
    """List, create and check plugins."""


@command.command("list")
@options.json_option
@options.plugin_options
def list_plugins(as_json: bool) -> None:
    """List plugins with their tasks, and the errors of broken ones."""
    from lmtasks.plugins import Registry

    registry = Registry()
    loaded, broken = registry.load_all()
    working = {plugin.discovered.name: plugin for plugin in loaded}
    rows: list[dict[str, str | list[str] | None]] = []
    for name, plugins in sorted({**registry.discovered, **registry.disabled}.items()):
        for plugin in plugins:
            status = "disabled" if name in registry.disabled and name not in registry.discovered else "ok"
            if name in broken:
                status = "broken"
            elif name in working and working[name].seconds > SLOW:
                status = f"slow ({working[name].seconds:.1f} s)"
            rows.append(
                {
                    "plugin": name,
                    "distribution": plugin.distribution,
                    "version": plugin.version,
                    "module": plugin.module,
                    "status": status,
                    "tasks": list(working[name].tasks) if name in working else [],
                    "error": str(broken[name]) if name in broken else None,
                }
            )
    for file in (name for name in broken if name not in registry.discovered):
        rows.append(
            {"plugin": "?", "distribution": Path(file).name, "version": "", "module": file, "status": "broken",
             "tasks": [], "error": str(broken[file])}
        )  # fmt: skip
    for plugin, error in registry.shadowed:
        rows.append(
            {"plugin": plugin.name, "distribution": plugin.distribution, "version": plugin.version,
             "module": plugin.module, "status": "shadowed", "tasks": [], "error": str(error)}
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    header = ("plugin", "distribution", "version", "module", "status", "tasks")
    click.echo(table(header, [(*(row[key] for key in header[:-1]), _few(row["tasks"])) for row in rows]))
    print_errors([*broken.values(), *(error for _, error in registry.shadowed)])


@command.command("check")
@click.argument("names", nargs=-1, metavar="[NAME|FILE|all]...", shell_complete=complete_plugins)
@options.json_option
@options.plugin_options
def check_plugins(names: tuple[str, ...], as_json: bool) -> int:
    """Check the tasks of plugins; the exit code is 1 if a check fails.

    \b
    lmtasks plugins check titles
    lmtasks plugins check ./titles.yaml
    lmtasks plugins check all
    """
    from lmtasks.checks.plugin import IS_LOADED, check_plugin
    from lmtasks.checks.result import CheckResult
    from lmtasks.checks.task import CHECKS
    from lmtasks.errors import PluginError
    from lmtasks.plugins import Registry

    registry = Registry()
    results: list[CheckResult] = []
    for name in list(registry.discovered) if names in ((), ("all",)) else names:
        try:
            of_plugin = check_plugin(name, registry)
        except PluginError as error:
            of_plugin = [CheckResult(task=name, check=IS_LOADED, status="failed", detail=str(error))]
            show_traceback(error)
        results += of_plugin
        if not as_json:
            click.echo(_as_text(of_plugin) + "\n")
    failed = sum(result.status == "failed" for result in results)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(result) for result in results], ensure_ascii=False, indent=2))
    else:
        tasks = len({result.task for result in results if result.check in CHECKS})
        counts = f"{tasks} task{'' if tasks == 1 else 's'}, " if tasks else ""
        counts += f"{len(results)} check{'' if len(results) == 1 else 's'}"
        click.echo(f"{counts}: {f'{failed} failed' if failed else 'all passed'}")
    return FAILED if failed else 0


@command.command("new")
@click.argument("name", required=False)
@click.option("--summary", metavar="TEXT", help="One-line summary of the task.")
@click.option("--author", metavar="NAME", help="Author for the license and the package metadata.")
@click.option("--metric", is_flag=True, help="Add an example metric.")
@click.option(
    "--adapter",
    type=arguments.UserPath(exists=True, file_okay=False),
    metavar="FOLDER",
    help="LoRA adapter of `lmtasks train` to bundle; it is copied into the package.",
)
@click.option(
    "-o",
    "--output",
    type=arguments.UserPath(file_okay=False),
    metavar="FOLDER",
    help="Output folder.  [default: lmtasks-NAME]",
)
@options.verbose_option
def new_plugin(
    name: str | None, summary: str | None, author: str | None, metric: bool, adapter: Path | None, output: Path | None
) -> None:
    """Create a plugin package with a task, which installs and passes its tests and `plugins check`.

    Asks for values that are not given.

    \b
    lmtasks plugins new titles --summary "Give a paragraph a title." --author "Ada Lovelace"
    """
    from lmtasks.plugins.scaffold import NewPlugin, write_plugin

    def asked(given: str | None, question: str, default: str | None = None) -> str:
        if given is not None:
            return given
        if not sys.stdin.isatty():
            if default is None:
                raise click.UsageError(f"{question} is missing")
            return default
        return str(click.prompt(question, default=default, err=True))

    name = asked(name, "NAME")
    plan = NewPlugin(
        name=name,
        summary=asked(summary, "Summary of its task", "Give a paragraph a title."),
        author=asked(author, "Author", f"The authors of lmtasks-{name}"),
        metric=metric,
        adapter=adapter,
    )
    folder = output or Path(plan.distribution)
    written = write_plugin(plan, folder)
    click.echo("\n".join(one_line(str(folder / file)) for file in written))
    install, test = shlex.quote(f"{folder}[test]"), shlex.quote(str(folder))
    next_steps = one_line(f"Next: pip install -e {install} && pytest {test} && lmtasks plugins check {plan.name}")
    click.echo(f"\n{next_steps}", err=True)


@command.command("schema")
def schema() -> None:
    """Print the JSON Schema of a YAML task, for editors that complete and validate."""
    from lmtasks.plugins.yaml_schema import task_schema

    click.echo(json.dumps(task_schema(), ensure_ascii=False, indent=2))


def _few(tasks: object) -> str:
    """Return the names of tasks, or the first three of many."""
    names = list(tasks) if isinstance(tasks, list) else []
    return ", ".join(names[:3]) + (f", ... ({len(names)})" if len(names) > 3 else "") or "-"


def _as_text(results: list[CheckResult]) -> str:
    marks = {"ok": "ok    ", "failed": "FAILED", "skipped": "-     "}
    lines, task = [], None
    for result in results:
        if result.task != task:
            lines += [*([""] if task else []), message(result.task)]
            task = result.task
        detail = f": {result.detail}" if result.detail else ""
        lines.append(message(f"  {marks[result.status]} {result.check}{detail}"))
    return "\n".join(lines)
