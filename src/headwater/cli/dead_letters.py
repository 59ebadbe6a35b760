"""`headwater dead-letters`: list, show, redrive, discard."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from headwater.cli.failures import FAILED, BadInput, complain
from headwater.cli.output import print_facts, print_json, print_line, print_payload, print_table
from headwater.cli.target import Where, app_option, json_option, opened_database, store_option, takes_where
from headwater.errors import HeadwaterError, SchemaError

if TYPE_CHECKING:
    from headwater.database import Database
    from headwater.inbox import Held
    from headwater.operations import Effect, HeldDetail, Outcome

REASONS = ("retry", "behind", "gap", "dead", "uncertain", "tally")


class Choice(msgspec.Struct, frozen=True):
    """Which held messages are meant: by their ids, or all dead letters of a consumer or with a fingerprint."""

    ids: Sequence[str]
    consumer: str
    fingerprint: str

    def check(self) -> None:
        """Refuse what names none or two kinds."""
        if bool(self.ids) == bool(self.consumer or self.fingerprint):
            raise click.UsageError("which? Give ids, or all of them with --consumer NAME or --fingerprint HASH")

    def __str__(self) -> str:
        if self.ids:
            return ", ".join(self.ids)
        of = f" of {self.consumer}" if self.consumer else ""
        return f"all dead letters{of}" + (f" with fingerprint {self.fingerprint}" if self.fingerprint else "")


def choice_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`[ID]…`, `--consumer` and `--fingerprint` as one argument, `choice`."""

    @functools.wraps(function)
    def gathered(*arguments: Any, ids: Sequence[str], consumer: str, fingerprint: str, **options: Any) -> Any:
        return function(*arguments, choice=Choice(ids, consumer, fingerprint), **options)

    with_cause = click.option("--fingerprint", default="", metavar="HASH", help="All with this cause.")(gathered)
    of_consumer = click.option("--consumer", default="", metavar="NAME", help="All of this consumer.")(with_cause)
    return click.argument("ids", nargs=-1, metavar="[ID]...")(of_consumer)


def agree(what: str, *, yes: bool) -> None:
    """Ask a person; where nobody can be asked, `--yes` must say it."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{what}: say --yes, since nobody can be asked here")
    if not click.confirm(f"{what}. Go on?", err=True):
        raise click.ClickException("nothing was done, as you said")


@click.group()
def command() -> None:
    """List, show, redrive and discard held messages."""


@command.command("list")
@click.option("--consumer", default="", metavar="NAME", help="Only of this consumer.")
@click.option("--reason", "reasons", type=click.Choice(REASONS), multiple=True, help="Only held for this; repeatable.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also what waits for a retry, behind another, for a gap, or for what a tally tells of.",
)
@click.option("--fingerprint", default="", metavar="HASH", help="Only with this cause.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many at most.")
@store_option
@app_option
@json_option
@takes_where
def list_(
    where: Where,
    *,
    consumer: str,
    reasons: Sequence[str],
    everything: bool,
    fingerprint: str,
    limit: int,
    as_json: bool,
) -> None:
    """Dead letters, and messages whose outside effect is uncertain."""
    from headwater.inbox import Reason
    from headwater.operations.dead_letters import DEAD, list_held, to_line

    wanted = list(Reason) if everything else [Reason(one) for one in reasons] or DEAD

    async def run() -> list[Held]:
        async with opened_database(where.settings().store) as database:
            return await list_held(
                database, consumer=consumer, reasons=wanted, fingerprint=fingerprint, limit=limit + 1
            )

    found = asyncio.run(run())
    lines = [to_line(one) for one in found[:limit]]
    if as_json:
        print_json({"held": lines, "more": len(found) > limit})
        return
    rows = [(one.id, one.reason, one.type, one.attempts, one.since, one.fingerprint, one.cause) for one in lines]
    print_table(("id", "reason", "type", "attempts", "since", "fingerprint", "cause"), rows, right=("attempts",))
    if len(found) > limit:
        complain(f"note: there are more than {limit}; see --limit, --consumer and --fingerprint")


@command.command()
@click.argument("held_id", metavar="ID")
@store_option
@app_option
@json_option
@takes_where
def show(where: Where, held_id: str, *, as_json: bool) -> None:
    """One held message: its cause and history, its outside effects, what to do about it, and its payload."""
    from headwater.operations.dead_letters import show_held

    async def run() -> HeldDetail:
        async with opened_database(where.settings().store) as database:
            return await show_held(database, meant(held_id))

    found = asyncio.run(run())
    if as_json:
        print_json(found)
        return
    facts = msgspec.structs.asdict(found)
    data, history, steps = facts.pop("data"), facts.pop("history"), facts.pop("steps")
    facts |= facts.pop("metadata") | {f"header {name}": value for name, value in facts.pop("headers").items()}
    print_facts([(name.replace("_", " "), value) for name, value in facts.items() if value is not False])
    for title, lines in (("history", history), ("outside effects", [_effect(step) for step in steps])):
        if lines:
            print_line(f"{title}:")
        for line in lines:
            print_line(f"  {line}")
    print_line()
    print_payload(data)


def _effect(step: dict[str, Any]) -> str:
    if not step["done"]:
        return f"{step['name']}: begun, outcome not known"
    return f"{step['name']}: done, {msgspec.json.encode(step['outcome']).decode()}"


def meant(held_id: str) -> str:
    """An id that is one; a usage error if not."""
    from headwater.operations.dead_letters import place_of

    try:
        place_of(held_id)
    except SchemaError as error:
        raise BadInput(str(error)) from error
    return held_id


@command.command()
@choice_options
@click.option(
    "--done", metavar="OUTCOME_JSON", help="The uncertain effect was done, with this outcome (null for none)."
)
@click.option("--not-done", is_flag=True, help="The uncertain effect was not done: it is done again.")
@click.option("--step", default="", metavar="NAME", help="Which effect, where several are open.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_option
@app_option
@json_option
@takes_where
def redrive(
    where: Where, choice: Choice, *, done: str | None, not_done: bool, step: str, yes: bool, as_json: bool
) -> int:
    """Let held messages be tried again at once: those of the ids, or all of a consumer or with a fingerprint."""
    from headwater.clock import SystemClock
    from headwater.operations import redrive as redrive_one
    from headwater.operations import redrive_all

    effect = _found_out(choice, done, not_done, step)
    if not_done:
        agree(f"the effect of {choice} will be done again", yes=yes)
    clock = SystemClock()

    async def one(database: Database, held_id: str) -> object:
        return await redrive_one(database, clock, held_id, effect)

    async def every(database: Database) -> Outcome:
        return await redrive_all(database, clock, consumer=choice.consumer, fingerprint=choice.fingerprint)

    try:
        return _change(where, choice, "redriven", (one, every), as_json=as_json)
    except SchemaError as error:
        raise BadInput(f"--done: {error}") from error


def _found_out(choice: Choice, done: str | None, not_done: bool, step: str) -> Effect | None:
    from headwater.operations import Effect

    choice.check()
    if done is None and not not_done:
        return None
    if done is not None and not_done:
        raise click.UsageError("--done and --not-done contradict each other")
    if len(choice.ids) != 1:
        raise click.UsageError("--done and --not-done are about one message: give its id")
    if done is None:
        return Effect(done=False, name=step)
    return Effect(done=True, outcome=done.encode("utf-8", "surrogateescape"), name=step)


@command.command()
@choice_options
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_option
@app_option
@json_option
@takes_where
def discard(where: Where, choice: Choice, *, yes: bool, as_json: bool) -> int:
    """Give up held messages for good: their effects never happen, and what waits behind them goes on.

    A message after a gap is given up together with all that is missing before it.
    """
    from headwater.operations import discard as discard_one
    from headwater.operations import discard_all

    choice.check()
    agree(f"{choice} will be given up for good", yes=yes)

    async def every(database: Database) -> Outcome:
        return await discard_all(database, consumer=choice.consumer, fingerprint=choice.fingerprint)

    return _change(where, choice, "discarded", (discard_one, every), as_json=as_json)


Ways = tuple[Callable[["Database", str], Awaitable[object]], Callable[["Database"], Awaitable["Outcome"]]]


def _change(where: Where, choice: Choice, word: str, ways: Ways, *, as_json: bool) -> int:
    """Change what was chosen, one by one or all at once, and say what became of it; the exit code."""
    outcome = asyncio.run(_apply(where, choice, ways))
    if as_json:
        print_json({word: outcome.changed, "left": outcome.left})
    else:
        print_line(f"{len(outcome.changed)} {word}" + (f", {len(outcome.left)} left" if outcome.left else ""))
        for held_id, why in outcome.left.items():
            complain(f"left {held_id}: {why}")
    return FAILED if outcome.left and (choice.ids or not outcome.changed) else 0


async def _apply(where: Where, choice: Choice, ways: Ways) -> Outcome:
    one, every = ways
    ids = [meant(held_id) for held_id in choice.ids]
    async with opened_database(where.settings().store) as database:
        if not ids:
            return await every(database)
        return await _one_by_one(database, ids, one)


async def _one_by_one(
    database: Database, ids: Sequence[str], one: Callable[[Database, str], Awaitable[object]]
) -> Outcome:
    """Change each; of several, those that cannot be changed are left."""
    from headwater.operations import Outcome

    outcome = Outcome([], {})
    for held_id in ids:
        try:
            await one(database, held_id)
            outcome.changed.append(held_id)
        except HeadwaterError as error:
            if len(ids) == 1:
                raise
            outcome.left[held_id] = str(error)
    return outcome
