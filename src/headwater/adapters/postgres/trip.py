"""Statements sent together: one flush and one wait for all, those that come again and again prepared."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Final

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

from headwater.adapters.postgres.faults import changed

PREPARED: Final = 500
"""Statements that a connection keeps prepared."""
SYNC, OUTCOMES = ExecStatus.PIPELINE_SYNC, (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK, ExecStatus.EMPTY_QUERY)

Key = tuple[bytes, tuple[int, ...]]
"""A statement, and the types that its values have."""


class Trip:
    """The statements of one trip after the other on a connection. With `keeps`, it prepares what it sends.

    `with` it, `send` what is to go and wait for the `answers`.
    """

    def __init__(self, pgconn: PGconn, *, keeps: bool = True) -> None:
        self.keeps = keeps
        self._pgconn = pgconn
        self._kept: dict[Key, bytes] = {}
        self._kept_ever = 0
        self._fresh: dict[int, Key] = {}
        self._due = 0

    def __enter__(self) -> None:
        self._fresh, self._due = {}, 0
        self._pgconn.enter_pipeline_mode()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        pgconn = self._pgconn
        try:
            if kind is None:
                pgconn.exit_pipeline_mode()
        finally:
            if pgconn.status == ConnStatus.OK and pgconn.pipeline_status:
                pgconn.finish()  # what was sent cannot be told from what comes next

    def command(self, sql: bytes) -> None:
        """Queue a statement that has no values and does not come again."""
        self._pgconn.send_query_params(sql, None)
        self._due += 1

    def send(self, sql: bytes, values: Sequence[Any], types: tuple[int, ...], formats: Any, wanted: Format) -> None:
        """Queue a statement, prepared where it pays."""
        pgconn = self._pgconn
        key = (sql, types)
        name = self._kept.get(key)
        if name is None and (not self.keeps or len(self._kept) >= PREPARED):
            pgconn.send_query_params(sql, values, types, formats, wanted)
        else:
            if name is None:
                self._kept_ever += 1
                name = self._kept[key] = b"hw%d" % self._kept_ever
                self._fresh[self._due] = key
                pgconn.send_prepare(name, sql, types)
                self._due += 1
            pgconn.send_query_prepared(name, values, formats, wanted)
        self._due += 1

    def answers(self) -> Generator[Wait, Ready | int, list[PGresult]]:
        """Send what is queued, and the result of each statement up to the mark at their end."""
        pgconn = self._pgconn
        pgconn.pipeline_sync()
        while pgconn.flush():
            if (yield Wait.RW) & Ready.R:
                pgconn.consume_input()
        results: list[PGresult] = []
        while True:
            while pgconn.is_busy():
                yield Wait.R
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                if pgconn.status == ConnStatus.BAD:
                    raise psycopg.OperationalError("the connection was lost")
            elif result.status == SYNC:
                return results
            else:
                results.append(result)

    def checked(self, results: list[PGresult], encoding: str) -> list[PGresult]:
        """The results of what was asked, without those of preparing it; raises what the first that failed tells."""
        fresh = self._fresh
        failed = next((place for place, one in enumerate(results) if one.status not in OUTCOMES), None)
        if failed is not None:
            for place, key in fresh.items():
                if place >= failed:
                    del self._kept[key]
            error = error_from_result(results[failed], encoding=encoding)
            if changed(error):
                self._kept.clear()
            raise error
        return [one for place, one in enumerate(results) if place not in fresh]
