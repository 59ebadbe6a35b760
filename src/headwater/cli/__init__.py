"""The command line: one face of `headwater.operations`. A command's module is imported when it is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from headwater.cli.failures import failed

COMMANDS = {
    "run": ("run", "Run a service until it is told to stop."),
    "demo": ("demo", "Run the example shop, and check its ledger."),
    "events": ("events", "List, show and follow the events of a log."),
    "aggregate": ("aggregate", "Show an aggregate as it is or was, and how it came to be so."),
    "command": ("command", "Send a command."),
    "consumers": ("consumers", "List consumers: how far behind they are, and what they hold."),
    "projections": ("projections", "List read models, and fill one anew."),
    "dead-letters": ("dead_letters", "List, show, redrive and discard held messages."),
    "channel": ("channel", "Show what an app needs of its channel, and make it."),
    "republish": ("republish", "Publish again what a service has published, from its log."),
    "db": ("db", "Make, upgrade, look into, verify and back up a database."),
}


class Lazy(click.Group):
    """Knows its commands by name and one line of help, so that `--help` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"headwater.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list for `--help`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": None},
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 configuration, 4 database or channel out of reach, 5 not found, "
    "6 conflict, 7 check failed, 130 interrupted. HEADWATER_DEBUG=1 shows tracebacks.",
)
@click.version_option(package_name="headwater", message="headwater %(version)s")
def root() -> None:
    """Event-driven services: run them, look into them, mend them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code. What goes wrong is one line on stderr."""
    try:
        code = root.main(args=arguments, prog_name="headwater", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BaseException as error:  # noqa: BLE001 - whatever it is becomes one line and an exit code
        return failed(error)
