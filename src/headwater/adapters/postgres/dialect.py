"""SQLAlchemy's dialect for a connection that is lent: whoever lent it begins and ends its transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg


class Dialect(PGDialect_psycopg):
    """PostgreSQL by psycopg; it neither ends a transaction nor closes a connection."""

    driver = "headwater"
    supports_statement_cache = True

    def do_commit(self, dbapi_connection: Any) -> None:
        """Left to whom it belongs."""

    def do_rollback(self, dbapi_connection: Any) -> None:
        """Left to whom it belongs."""

    def do_close(self, dbapi_connection: Any) -> None:
        """Left to whom it belongs."""

    def do_terminate(self, dbapi_connection: Any) -> None:
        """Left to whom it belongs."""
