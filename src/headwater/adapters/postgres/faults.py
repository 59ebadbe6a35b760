"""What PostgreSQL says when it fails, in our words: what happened, and what to do.

A server's DETAIL holds values of rows, so neither it nor the server's error as a cause ever leaves this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import errors

from headwater.adapters.postgres.url import Place
from headwater.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseFull,
    DatabaseReadOnly,
    DatabaseUnreachable,
    HeadwaterError,
    SchemaError,
)

STALE: Final = "HW001"
"""Raised by our SQL: what a judgement was based on was changed by another process."""
AGAIN: Final = frozenset({STALE, "40001", "40P01", "23505"})
"""Failures after which the same sets are judged anew: a race with another process was lost."""
UNKNOWN: Final = "26000"
FAULTS: Final[tuple[tuple[tuple[type[Exception], ...], type[HeadwaterError], str], ...]] = (
    (
        (errors.DiskFull, errors.OutOfMemory),
        DatabaseFull,
        "no space is left on the server of {place}: free some space, work goes on by itself",
    ),
    (
        (errors.ReadOnlySqlTransaction,),
        DatabaseReadOnly,
        "{place} takes no writes, it is a replica or set read-only: name the primary",
    ),
    (
        (errors.InsufficientPrivilege,),
        ConfigurationError,
        "{user} lacks a right on {place} ({said}): have its owner run `headwater db init`, or grant it",
    ),
    (
        (errors.TooManyConnections,),
        DatabaseError,
        "{place} takes no more connections: raise max_connections, or run fewer processes",
    ),
    (
        (errors.QueryCanceled, errors.LockNotAvailable),
        DatabaseError,
        "{place} stopped a statement ({said}): look for what holds it up, or raise the server's time limit",
    ),
    (
        (psycopg.DataError, errors.ProgramLimitExceeded, errors.CheckViolation, errors.NotNullViolation),
        SchemaError,
        "a value cannot be stored in {place} ({kind})",
    ),
    ((UnicodeEncodeError, TypeError, ValueError, OverflowError), SchemaError, "a value cannot be stored: {kind}"),
)
REFUSALS: Final = (
    ("no password supplied", "{place} wants a password for {user}: put it into the URL of the store"),
    ("password authentication failed", "{place} refused the password of {user}: check the URL of the store"),
    ("no pg_hba.conf entry", "{place} does not let {user} in from here: add a line to its pg_hba.conf"),
    ("certificate", "the TLS certificate of {place} is not trusted: name its authority by sslrootcert=FILE in the URL"),
    ("does not support SSL", "{place} offers no TLS: switch it on there, or go without by sslmode=disable in the URL"),
    ("FATAL:  role ", "{place} knows no user {user}: check the URL of the store, or make the role"),
    ("FATAL:  database ", "there is no database {database} on the server: make it (createdb {database})"),
    ("FATAL:  permission denied", "{user} may not connect: GRANT CONNECT ON DATABASE {database} TO {user}"),
)
"""What libpq says of a connection that was refused for good; it gives no code, only words."""


def lost(error: BaseException) -> bool:
    """Whether it means that the connection is gone, or about to be: libpq's own errors have no code."""
    ended = psycopg.OperationalError | errors.IdleInTransactionSessionTimeout
    code = error.sqlstate if isinstance(error, ended) else "other"
    return code is None or code.startswith(("08", "57P", "25P03"))


def translate(error: BaseException, place: Place) -> HeadwaterError:
    """The error of ours for anything that was raised while working with the database at `place`."""
    if isinstance(error, HeadwaterError):
        return error
    if isinstance(error, errors.FeatureNotSupported) and "during recovery" in said(error):
        error = errors.ReadOnlySqlTransaction()
    words = {"place": place.name, "user": place.user or "the user", "kind": type(error).__name__, "said": said(error)}
    for kinds, ours, text in FAULTS:
        if isinstance(error, kinds):
            return ours(text.format_map(words))
    if isinstance(error, errors.UndefinedTable):
        return DatabaseError(f"{said(error)} in {place.name}: make it before it is used")
    return DatabaseError(f"{place.name}: {type(error).__name__}: {said(error)}")


def refused(error: psycopg.Error, place: Place) -> HeadwaterError:
    """The error of ours for a connection that could not be made."""
    text = str(error)
    words = {"place": place.name, "user": place.user or "the user", "database": place.database}
    for part, ours in REFUSALS:
        if part in text:
            return ConfigurationError(ours.format_map(words))
    return DatabaseUnreachable(
        f"{place.name} cannot be reached: start the server, or check host and port in the URL of the store"
    )


def said(error: BaseException) -> str:
    """The first line of what a server said, which has no values of rows; else the error's own words."""
    if isinstance(error, psycopg.Error):
        return error.diag.message_primary or "the connection was lost"
    return str(error)


@contextmanager
def translated(place: Place) -> Iterator[None]:
    """Raise errors of ours for what psycopg raises inside the block."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error, place) from None


def changed(error: psycopg.Error) -> bool:
    """Whether a prepared statement would give other columns now, or the server does not know it: prepared anew, it works."""
    return error.sqlstate == UNKNOWN or error.diag.source_function == "RevalidateCachedQuery"
