"""What went wrong, as one line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Final

import click

from headwater.errors import (
    ChannelError,
    ConfigurationError,
    Conflict,
    DatabaseError,
    HeadwaterError,
    KeyReused,
    NotFound,
)

FAILED: Final = 1
USAGE: Final = 2
CHECK_FAILED: Final = 7
INTERRUPTED: Final = 130

CODES: Final[tuple[tuple[type[HeadwaterError], int], ...]] = (
    (ConfigurationError, 3),
    (DatabaseError, 4),
    (ChannelError, 4),
    (NotFound, 5),
    (Conflict, 6),
    (KeyReused, 6),
)
"""Exit codes by kind of error; any other is 1."""


class BadInput(click.ClickException):
    """What was given on the command line is no command, id or outcome; the message says why."""

    exit_code = USAGE


def code_of(error: BaseException) -> int:
    """The exit code that an error means."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        return error.exit_code
    return next((code for kind, code in CODES if isinstance(error, kind)), FAILED)


def failed(error: BaseException) -> int:
    """Report an error that ended a command, and give its exit code."""
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more is written at exit
        return FAILED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED
    if os.environ.get("HEADWATER_DEBUG", "") not in ("", "0") and not isinstance(error, click.ClickException):
        traceback.print_exception(error)
    elif line := line_of(error):
        complain(line)
    return code_of(error)


def line_of(error: BaseException) -> str:
    """An error in one line: what happened, and what to do."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return "interrupted"
    if isinstance(error, click.UsageError):
        where = f"; see `{error.ctx.command_path} --help`" if error.ctx is not None else ""
        return f"error: {error.format_message().rstrip('.')}{where}"
    if isinstance(error, click.ClickException):
        return f"error: {error.format_message()}"
    if isinstance(error, HeadwaterError):
        return f"error: {error}"
    return f"error: {type(error).__name__}: {error}; set HEADWATER_DEBUG=1 to see where"


def complain(line: str) -> None:
    """Write one line to stderr."""
    text = " ".join(line.split())
    click.echo("".join(one if one.isprintable() else repr(one)[1:-1] for one in text), err=True)
