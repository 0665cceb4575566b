"""`lmtasks`: finds the command, imports that one alone, and turns errors into one line and an exit code."""

from __future__ import annotations

import difflib
import importlib
import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version

import click

from lmtasks.cli.flags import flag
from lmtasks.cli.streams import standard_streams
from lmtasks.cli.terminal import FAILED, message, print_errors, say
from lmtasks.errors import LmtasksError, UnknownNameError, UsageError, spell_options

COMMANDS = {
    "run": ("lmtasks.cli.run", "Run tasks over data with a model: scores, run folder, report."),
    "ask": ("lmtasks.cli.ask", "Do a task on your own text."),
    "train": ("lmtasks.cli.train", "Fine-tune an adapter for a task, scored before and after."),
    "score": ("lmtasks.cli.score", "Score outputs made elsewhere, or a run again; no model is loaded."),
    "compare": ("lmtasks.cli.compare", "Compare runs on the same examples: differences, tests, verdict."),
    "list": ("lmtasks.cli.list", "List the tasks."),
    "show": ("lmtasks.cli.show", "Show a task, and its prompt as the model sees it."),
    "data": ("lmtasks.cli.data", "Check a data file: everything that is wrong with it, at once."),
    "models": ("lmtasks.cli.models", "List and fetch models."),
    "adapters": ("lmtasks.cli.adapters", "Show an adapter, or merge it into its model."),
    "plugins": ("lmtasks.cli.plugins", "List, begin and check plugins."),
    "completion": ("lmtasks.cli.completion", "Complete commands and task names in a shell."),
}
"""Command to its module and its line in --help, so that --help imports none of them."""
USAGE, GATE, INTERRUPTED = 2, 3, 130


class LazyGroup(click.Group):
    """A group that imports a command when it is called, and no other."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order they are thought of."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command.

        Raises:
            UsageError: there is no such command; offers the nearest.
        """
        if cmd_name not in COMMANDS:
            nearest = difflib.get_close_matches(cmd_name, COMMANDS, n=1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise click.UsageError(f"No such command {cmd_name!r}.{hint}", ctx)
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


class OneLine(logging.Formatter):
    """Writes a message in one line; a traceback below it has its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the message."""
        return message(super().formatMessage(record))


# With color, click leaves escape sequences of an answer alone where it is piped; for terminals, see streams.py.
@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "color": True})
@click.version_option(version("lmtasks"), "--version", message="lmtasks %(version)s")
def cli() -> None:
    """One language model in memory, every NLP task a plugin."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code.

    0: fine; 1: failed; 2: wrong usage, unknown names included; 3: a gate was not met; 130: interrupted.
    """
    with standard_streams(), spell_options(flag):
        sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("lmtasks: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.ERROR)
    logging.getLogger("lmtasks").setLevel(logging.WARNING)
    try:
        code = cli.main(args=arguments, prog_name="lmtasks", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.message = message(error.message)  # type: ignore[misc]  # Final, but what else does `show` write?
        error.show()
        return error.exit_code
    except LmtasksError as error:
        print_errors([error])
        return USAGE if isinstance(error, (UsageError, UnknownNameError)) else FAILED
    except (KeyboardInterrupt, click.Abort):
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return FAILED  # whoever read our output (head, less) has gone; nothing is left to say
    return code if isinstance(code, int) else 0
