"""One tree of errors: each says what happened and what to do; `retryable` says whether trying again can help."""

from __future__ import annotations


class HeadwaterError(Exception):
    """The root of all errors that Headwater raises."""

    retryable = False


class Rejected(HeadwaterError):
    """A command was refused by a decision: raise it from `decide` with a reason for the caller and details as keywords."""

    def __init__(self, reason: str, **details: object) -> None:
        super().__init__(reason)
        self.reason = reason
        self.details = details


class Unknown(HeadwaterError):
    """The outcome of a commit is not known: ask by the command key (send the same command with the same key again)."""

    def __init__(self, key: str = "", cause: str = "") -> None:
        super().__init__(
            f"the outcome of the commit is unknown ({cause or 'the connection was lost'}); send again with key {key!r}"
        )
        self.key = key


class KeyReused(HeadwaterError):
    """A command key was used again for a different command: use a new key for a new command."""


class Conflict(HeadwaterError):
    """What an append expected no longer holds: load again and decide again."""

    retryable = True


class ConfigurationError(HeadwaterError):
    """The app, a setting or an environment variable is wrong: mend it and start again."""


class DeclarationError(ConfigurationError):
    """A message, aggregate, read model, saga or handler is declared in a way that cannot work."""


class MissingExtra(ConfigurationError):
    """An adapter's library is not installed: install the extra that the message names."""


class SchemaError(HeadwaterError):
    """Data does not fit its type: unknown type, malformed bytes, or a value that would not survive storage."""


class DatabaseError(HeadwaterError):
    """The database could not do it; nothing of the transaction is stored."""

    retryable = True


class DatabaseFull(DatabaseError):
    """No space left for the database: free some space; work goes on by itself."""


class DatabaseReadOnly(DatabaseError):
    """The database cannot be written: check the permissions of the file and of its folder."""

    retryable = False


class DatabaseUnreachable(DatabaseError):
    """The server of the database does not answer: start it, or check host and port in its URL."""


class SchemaMismatch(ConfigurationError):
    """The database was made by another version of Headwater: upgrade the database or the package."""


class ChannelError(HeadwaterError):
    """The channel could not take or give messages; they stay in the log and are tried again."""

    retryable = True


class ChannelFull(ChannelError):
    """The channel holds as many messages as it may: let its slowest group catch up, or raise the limit."""


class NotFound(HeadwaterError):
    """What was asked for does not exist."""


class Stale(HeadwaterError):
    """A read model has not reached the position asked for within the time given: ask again, or read without `after`."""

    retryable = True


class Uncertain(HeadwaterError):
    """An outside effect may or may not have happened: a person decides with `headwater dead-letters redrive`."""


class NotDone(HeadwaterError):
    """Raise it inside a call given to `once` when the effect surely did not happen, so that it may be tried again."""

    retryable = True
