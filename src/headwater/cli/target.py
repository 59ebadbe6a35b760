"""What a command works on: an app by name, a store and a channel by URL, opened and closed."""

from __future__ import annotations

import functools
import importlib
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeVar

import click
from msgspec import Struct

from headwater.app import App, open_channel, open_database
from headwater.channel import Channel
from headwater.cli.failures import complain
from headwater.clock import SystemClock
from headwater.config import Settings, settings
from headwater.database import Database
from headwater.errors import ConfigurationError, DatabaseError, HeadwaterError, NotFound

Function = TypeVar("Function", bound=Callable[..., Any])

UNNAMED: Final = "?"
"""The name of no app: it shows that the default was taken."""


# --- options ---


class Where(Struct, frozen=True):
    """What a command works on, as the command line says it; what is empty comes from the app, or the environment."""

    target: str | None = None
    store: str = ""
    channel: str = ""

    def app(self) -> App:
        """The app. Raises ConfigurationError."""
        return load_app(self.target)

    def settings(self) -> Settings:
        """The URLs for a command that needs no types: by `--store`, the app, the environment or pyproject.toml."""
        if self.target and not self.store:
            return self.settings_of(self.app())
        found = settings(UNNAMED, store=self.store, channel=self.channel)
        if found.store == f"sqlite:///{UNNAMED}.db":
            raise click.UsageError("which database? Say --store URL or --app MODULE:APP, or set HEADWATER_STORE")
        return found

    def settings_of(self, app: App) -> Settings:
        """The URLs of an app; those of the command line go first."""
        return app.settings(store=self.store, channel=self.channel)


def takes_where(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gather `--app`, `--store` and `--channel` into one argument."""

    @functools.wraps(function)
    def gathered(*arguments: Any, target: str | None = None, store: str = "", channel: str = "", **options: Any) -> Any:
        return function(Where(target, store, channel), *arguments, **options)

    return gathered


def app_option(function: Function) -> Function:
    """`--app MODULE:APP`."""
    return click.option(
        "--app", "target", envvar="HEADWATER_APP", metavar="MODULE:APP", help="The app; also HEADWATER_APP."
    )(function)


def words_after_app(*names: str, optional: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`[MODULE:APP]`, which is told by its colon and may as well come from `--app`, and arguments of these names.

    With `optional`, the last of them may be missing.
    """
    shown = [name.strip("_").upper() for name in names]
    shown[-1:] = [f"[{name}]" if optional else name for name in shown[-1:]]
    usage = " ".join(["[MODULE:APP]", *shown])

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def gathered(*arguments: Any, words: Sequence[str], target: str | None, **options: Any) -> Any:
            if words and ":" in words[0]:
                target, words = words[0], words[1:]
            if not len(names) - optional <= len(words) <= len(names):
                raise click.UsageError(f"expected {usage}")
            given = dict.fromkeys(names) | dict(zip(names, words, strict=False))
            return function(*arguments, target=target, **given, **options)

        words = click.argument("words", nargs=-1, metavar=usage)
        return app_option(words(gathered))

    return decorate


def store_option(function: Function) -> Function:
    """`--store URL`."""
    return click.option("--store", default="", metavar="URL", help="The database, say sqlite:///orders.db.")(function)


def channel_option(function: Function) -> Function:
    """`--channel URL`."""
    return click.option("--channel", default="", metavar="URL", help="The channel, say sqlite:///channel.db.")(function)


def json_option(function: Function) -> Function:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(function)


# --- apps ---


def load_app(target: str | None) -> App:
    """The app that `MODULE:APP` names. Raises ConfigurationError, or a usage error where it names nothing."""
    if not target:
        raise click.UsageError(
            "which app? Say --app MODULE:APP, for example --app orders.app:app, or set HEADWATER_APP"
        )
    name, _, attribute = target.partition(":")
    if name.endswith(".py"):
        raise click.UsageError(
            f"{target!r} names a file; write its module: {name.removesuffix('.py')}:{attribute or 'app'}"
        )
    if not all(part.isidentifier() for part in (*name.split("."), *attribute.split("."))):
        raise click.UsageError(f"{target!r} is not MODULE:APP; write for example orders.app:app")
    module = _import(name)
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if isinstance(found, App):
        return found
    apps = [f"{name}:{one}" for one, value in vars(module).items() if isinstance(value, App)]
    what = f"has no {attribute!r}" if found is None else f"has {attribute!r}, but it is no App"
    raise ConfigurationError(f"the module {name} {what}; its apps are: {', '.join(apps) or 'none'}")


def _import(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except HeadwaterError as error:
        raise ConfigurationError(f"the module {name}: {error}") from error
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigurationError(
                f"there is no module {name} in {here} or among what is installed; start where it can be imported"
            ) from error
        raise ConfigurationError(f"the module {name} imports {error.name}, which is not installed") from error
    except (Exception, SystemExit) as error:
        raise ConfigurationError(f"the module {name} cannot be imported: {_where(error)}; mend it") from error


def _where(error: BaseException) -> str:
    """An error of a user's module, and the place in it."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({error.filename}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {error} ({frames[-1].filename}:{frames[-1].lineno})"


# --- stores and channels ---


def file_of(adapter: Any) -> Path | None:
    """The file that a database or channel lies in; None where it is no file."""
    path = getattr(getattr(adapter, "file", None), "path", None) or getattr(adapter, "path", None)
    return path if isinstance(path, Path) else None


def existing_database(url: str) -> Database:
    """The database of a URL, not yet opened. Raises NotFound: to look at it must not make it."""
    database = open_database(url, SystemClock())
    path = file_of(database)
    if path is not None and not path.exists():
        raise NotFound(f"there is no database at {path}; check --store, or make it: headwater db init")
    return database


async def opened(database: Database) -> Database:
    """Open a database; but not a file that is something else, which it would give our tables. Raises NotFound."""
    status = getattr(database, "status", None)
    try:
        if status is not None:
            await status()
    except DatabaseError as error:
        if type(error) is not DatabaseError:
            raise
        raise NotFound(f"that is no database of Headwater ({error}); check --store") from error
    await database.open()
    return database


@asynccontextmanager
async def opened_database(url: str) -> AsyncIterator[Database]:
    """The database of a URL, open for a while. Raises NotFound."""
    database = await opened(existing_database(url))
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def opened_channel(url: str) -> AsyncIterator[Channel | None]:
    """The channel of a URL, open for a while; None, with a note, where there is none yet."""
    channel = open_channel(url, SystemClock())
    path = file_of(channel)
    if path is not None and not path.exists():
        complain(f"note: there is no channel at {path}, so the lag of what it feeds is not known; see --channel")
        yield None
        return
    await channel.open()
    try:
        yield channel
    finally:
        await channel.close()
