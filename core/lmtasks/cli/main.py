"""`lmtasks`: imports the command that is called, and turns errors into one line and an exit code."""

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
    "run": ("lmtasks.cli.run", "Run tasks on data with a model; write scores and a report."),
    "ask": ("lmtasks.cli.ask", "Run a task on your own text."),
    "train": ("lmtasks.cli.train", "Fine-tune a LoRA adapter for a task and score it."),
    "score": ("lmtasks.cli.score", "Score predictions of a file or a run again; no model is loaded."),
    "compare": ("lmtasks.cli.compare", "Compare runs on the same examples, with significance tests."),
    "list": ("lmtasks.cli.list", "List the tasks."),
    "show": ("lmtasks.cli.show", "Show a task and its rendered prompt."),
    "data": ("lmtasks.cli.data", "Check a data file for a task."),
    "models": ("lmtasks.cli.models", "List and download models."),
    "adapters": ("lmtasks.cli.adapters", "Show an adapter, or merge it into its base model."),
    "plugins": ("lmtasks.cli.plugins", "List, create and check plugins."),
    "schema": ("lmtasks.cli.schema", "Print the JSON Schema of a file: task, run, sample or adapter."),
    "completion": ("lmtasks.cli.completion", "Print a shell completion script."),
}
"""Module and one-line help of each command; --help imports no command."""
USAGE, GATE, INTERRUPTED = 2, 3, 130


class LazyGroup(click.Group):
    """A group that imports only the command that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command.

        Raises:
            UsageError: the command does not exist; offers the nearest.
        """
        if cmd_name not in COMMANDS:
            nearest = difflib.get_close_matches(cmd_name, COMMANDS, n=1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise click.UsageError(f"No such command {cmd_name!r}.{hint}", ctx)
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from `COMMANDS`, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


class OneLine(logging.Formatter):
    """Formats a message as one line; a traceback follows on its own lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the message."""
        return message(super().formatMessage(record))


# color: click keeps escape sequences of model output where stdout is piped; streams.py removes them on terminals.
@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "color": True})
@click.version_option(version("lmtasks"), "--version", message="lmtasks %(version)s")
def cli() -> None:
    """One language model in memory, every NLP task a plugin."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit the process.

    Exit codes: 0 success, 1 failure, 2 wrong usage or unknown name, 3 a gate was not met, 130 interrupted.
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
        error.message = message(error.message)  # type: ignore[misc]  # Final, but `show` writes nothing else
        error.show()
        return error.exit_code
    except LmtasksError as error:
        print_errors([error])
        return USAGE if isinstance(error, (UsageError, UnknownNameError)) else FAILED
    except (KeyboardInterrupt, click.Abort):
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return FAILED  # the reader of stdout (head, less) has exited
    return code if isinstance(code, int) else 0
