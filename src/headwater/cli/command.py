"""`headwater command send`."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from headwater.cli.failures import FAILED, BadInput, complain
from headwater.cli.output import print_json, print_line
from headwater.cli.target import (
    Where,
    existing_database,
    json_option,
    opened,
    store_option,
    takes_where,
    words_after_app,
)
from headwater.errors import Rejected, SchemaError, Unknown
from headwater.store import Committed

if TYPE_CHECKING:
    pass

READ = 16 * 1024 * 1024
"""Bytes of a file that are read at most: enough to see that it is too long."""


@click.group()
def command() -> None:
    """Send a command."""


@command.command()
@words_after_app("type_", "json_", optional=True)
@click.option("-f", "--file", type=click.File("rb"), help="Read the JSON from a file; - is stdin.")
@click.option("--key", default="", help="The command key: with the same key it is done once, however often it is sent.")
@click.option("--tenant", default="", help="For this tenant.")
@click.option("--actor", default="", help="Who sends it; kept with its events.")
@store_option
@json_option
@takes_where
def send(  # noqa: PLR0913 - the options are the interface
    where: Where,
    *,
    type_: str,
    json_: str | None,
    file: BinaryIO | None,
    key: str,
    tenant: str,
    actor: str,
    as_json: bool,
) -> int:
    """Decide a command now: TYPE is its stored name or class name, JSON its fields."""
    from headwater.operations.commands import read_command, send_command

    app = where.app()
    try:
        payload = read_command(app, type_, given(json_, file))
    except SchemaError as error:
        raise BadInput(str(error)) from error
    known = key or app.clock.new_id()

    async def run() -> Committed | Rejected | Unknown:
        if where.store:  # a store that the app names may be made by its first command
            await app.connect(await opened(existing_database(where.store)))
        async with app.client():
            return await send_command(app, payload, known, tenant=tenant, actor=actor)

    return report(asyncio.run(run()), known, as_json=as_json)


def given(data: str | None, file: BinaryIO | None) -> bytes:
    """The bytes of the JSON, from the argument or a file."""
    if (data is None) == (file is None):
        raise click.UsageError("give the fields of the command as JSON, or name a file with --file; - is stdin")
    if file is not None:
        return file.read(READ)
    return str(data).encode("utf-8", "surrogateescape")


def report(answer: Committed | Rejected | Unknown, key: str, *, as_json: bool) -> int:
    """Say how a command was answered; the exit code."""
    document: dict[str, Any] = {"key": key}
    match answer:
        case Committed():
            document |= {"answer": "committed", "position": answer.position, "version": answer.version}
            document["repeated"] = answer.repeated
            line = f"committed at position {answer.position}, version {answer.version} of its stream"
            line += " (it was done before under this key)" if answer.repeated else ""
        case Rejected():
            document |= {"answer": "rejected", "reason": answer.reason, "details": answer.details}
            details = "".join(f"; {name}={value!r}" for name, value in answer.details.items())
            line = f"error: rejected: {answer.reason}{details}"
        case _:
            document |= {"answer": "unknown"}
            line = f"error: {answer}"
    if as_json:
        print_json(document)
    elif isinstance(answer, Committed):
        print_line(line)
    else:
        sys.stdout.flush()
        complain(line)
    return 0 if isinstance(answer, Committed) else FAILED
