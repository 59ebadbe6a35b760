"""`headwater db`: init, upgrade, status, sql, verify, backup."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from headwater.app import open_database
from headwater.cli.failures import CHECK_FAILED, complain
from headwater.cli.output import print_facts, print_json, print_line, print_table
from headwater.cli.target import (
    Where,
    app_option,
    existing_database,
    file_of,
    json_option,
    load_app,
    store_option,
    takes_where,
)
from headwater.clock import SystemClock
from headwater.errors import DatabaseError, DatabaseReadOnly, SchemaMismatch

if TYPE_CHECKING:
    from headwater.database import Database
    from headwater.operations import Upkeep

Result = TypeVar("Result")


@click.group()
def command() -> None:
    """Make, upgrade, look into, verify and back up a database."""


def keeping(where: Where, work: Callable[[Upkeep], Awaitable[Result]]) -> Result:
    """Do something with an existing database, which is not opened for it."""
    from headwater.operations import upkeep_of

    async def run() -> Result:
        return await work(upkeep_of(existing_database(where.settings().store)))

    return asyncio.run(run())


@command.command()
@store_option
@app_option
@json_option
@takes_where
def init(where: Where, *, as_json: bool) -> None:
    """Make a database with Headwater's tables and, with --app, those of its read models; one that is there stays."""
    url = where.settings().store
    database = open_database(url, SystemClock())
    path = file_of(database)
    there = asyncio.run(_init(database, where.target))
    document = {"store": url if path is None else str(path), "made": not there}
    if as_json:
        print_json(document)
    else:
        print_line(f"{document['store']} {'was there, and is current' if there else 'is made'}")


async def _init(database: Database, target: str | None) -> bool:
    """Make it; whether it was there."""
    app = load_app(target) if target else None
    there = await _is_there(database)
    await database.open()
    try:
        for projection in app.declared.projections.values() if app is not None else ():
            await database.create_table(projection.table)
    finally:
        await database.close()
    return there


async def _is_there(database: Database) -> bool:
    if (path := file_of(database)) is not None:
        return path.exists()
    status = getattr(database, "status", None)
    with suppress(DatabaseError):
        return status is not None and bool(await status())
    return False


@command.command()
@store_option
@app_option
@json_option
@takes_where
def upgrade(where: Where, *, as_json: bool) -> None:
    """Bring the tables of an older Headwater to this one's. Back up first: there is no way back."""

    async def work(upkeep: Upkeep) -> dict[str, object]:
        before = (await upkeep.status())["schema"]
        await upkeep.open(upgrade=True)
        await upkeep.close()
        return {"before": before, "after": (await upkeep.status())["schema"]}

    versions = keeping(where, work)
    if as_json:
        print_json(versions)
    elif versions["before"] == versions["after"]:
        print_line(f"nothing to do: {_versions(versions['after'])}")
    else:
        print_line(f"upgraded from {_versions(versions['before'])} to {_versions(versions['after'])}")


def _versions(schema: Any) -> str:
    return ", ".join(f"{component} version {version}" for component, version in schema.items())


@command.command()
@store_option
@app_option
@json_option
@takes_where
def status(where: Where, *, as_json: bool) -> int:
    """Figures of a database, and whether its tables fit this Headwater; exit code 7 if they do not."""

    async def work(upkeep: Upkeep) -> dict[str, object]:
        figures = await upkeep.status()
        try:
            await upkeep.open()
        except SchemaMismatch as error:
            return figures | {"current": False, "problem": str(error)}
        await upkeep.close()
        return figures | {"current": True}

    figures = keeping(where, work)
    if as_json:
        print_json(figures)
    else:
        shown = figures | {"schema": _versions(figures["schema"])}
        problem = shown.pop("problem", "")
        print_facts([(name.replace("_", " "), value) for name, value in shown.items()])
        if problem:
            complain(f"error: {problem}")
    return 0 if figures["current"] else CHECK_FAILED


@command.command()
@click.argument("query", required=False)
@click.option("-f", "--file", type=click.File("r"), help="Read the statement from a file; - is stdin.")
@store_option
@app_option
@json_option
@takes_where
def sql(where: Where, query: str | None, file: TextIO | None, *, as_json: bool) -> None:
    """Rows of an SQL statement that only reads; without one, the SQL of all tables."""
    from headwater.operations import NotPossible

    statement = file.read() if file is not None else query

    async def work(upkeep: Upkeep) -> list[tuple[Any, ...]]:
        if statement is None:
            return [(one,) for one in await upkeep.statements()]
        try:
            return await upkeep.query(statement)
        except DatabaseReadOnly as error:
            raise NotPossible("`db sql` only reads; change data by commands and handlers") from error
        except DatabaseError as error:
            raise NotPossible(str(error)) from error

    rows = [[_value(value) for value in row] for row in keeping(where, work)]
    if as_json:
        print_json({"rows": rows})
    elif statement is None:
        for (text,) in rows:
            for line in f"{text};".splitlines():
                print_line(line)
    elif rows:
        print_table([""] * len(rows[0]), rows)


def _value(value: Any) -> Any:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


@command.command()
@store_option
@app_option
@json_option
@takes_where
def verify(where: Where, *, as_json: bool) -> int:
    """Check that a database is whole: its pages, and that no version or position is missing; exit code 7 if not."""

    async def work(upkeep: Upkeep) -> list[str]:
        return await upkeep.verify()

    problems = keeping(where, work)
    if as_json:
        print_json({"whole": not problems, "problems": problems})
    else:
        print_line("whole" if not problems else f"{len(problems)} problems")
        for problem in problems:
            complain(f"error: {problem}")
    return CHECK_FAILED if problems else 0


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
@store_option
@app_option
@json_option
@takes_where
def backup(where: Where, file: Path, *, as_json: bool) -> None:
    """Copy a database, as it is now, to a new FILE; its service goes on meanwhile."""

    async def work(upkeep: Upkeep) -> None:
        await upkeep.backup(file)

    keeping(where, work)
    size = file.stat().st_size
    if as_json:
        print_json({"backup": str(file), "bytes": size})
    else:
        print_line(f"{file} has {size:,} bytes")
