"""What SQLite says when it fails, in our words: what happened, and what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw

from headwater.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseFull,
    DatabaseReadOnly,
    HeadwaterError,
    SchemaError,
)

READ_ONLY: Final = "{path} cannot be written: check the permissions of the file and of its folder"
FAULTS: Final[tuple[tuple[tuple[type[Exception], ...], type[HeadwaterError], str], ...]] = (
    ((apsw.FullError,), DatabaseFull, "no space is left for {path}: free some space, work goes on by itself"),
    ((apsw.ReadOnlyError, apsw.PermissionsError, apsw.AuthError, PermissionError), DatabaseReadOnly, READ_ONLY),
    (
        (apsw.CorruptError, apsw.NotADBError),
        ConfigurationError,
        "{path} is damaged or no SQLite database ({error}): restore it from a backup",
    ),
    (
        (apsw.BusyError, apsw.LockedError),
        DatabaseError,
        "another program holds {path} locked ({error}): end its transaction",
    ),
    (
        (apsw.MismatchError, apsw.TooBigError, TypeError, ValueError, OverflowError),
        SchemaError,
        "a value cannot be stored: {error}",
    ),
)
ERRNOS: Final = {
    errno.ENOSPC: apsw.FullError,
    errno.EDQUOT: apsw.FullError,
    errno.EROFS: apsw.ReadOnlyError,
    errno.ENOENT: apsw.CantOpenError,
}
"""What SQLite would have said to an error of the operating system."""


def translate(error: BaseException, path: Path) -> HeadwaterError:
    """The error of ours for anything that was raised while working with the file at `path`."""
    if isinstance(error, HeadwaterError):
        return error
    if isinstance(error, OSError) and error.errno in ERRNOS:
        error = ERRNOS[error.errno](str(error))
    if isinstance(error, apsw.CantOpenError):
        return _cannot_open(path)
    if getattr(error, "extendedresult", 0) == apsw.SQLITE_CONSTRAINT_DATATYPE:
        return SchemaError(f"a value does not fit its column: {error}")
    for kinds, ours, words in FAULTS:
        if isinstance(error, kinds):
            return ours(words.format(path=path, error=error))
    return DatabaseError(f"{path}: {type(error).__name__}: {error}")


def read_only(path: Path) -> DatabaseReadOnly:
    """The error for a file that cannot be written."""
    return DatabaseReadOnly(READ_ONLY.format(path=path))


def _cannot_open(path: Path) -> HeadwaterError:
    folder = path.parent
    if not folder.is_dir():
        return ConfigurationError(f"the folder {folder} does not exist: make it, or choose another path")
    if not os.access(path if path.exists() else folder, os.W_OK):
        return read_only(path)
    return ConfigurationError(f"{path} cannot be opened: check that it is a file on a local disk")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise errors of ours for what SQLite and the operating system raise inside the block."""
    try:
        yield
    except (apsw.Error, OSError) as error:
        raise translate(error, path) from error
