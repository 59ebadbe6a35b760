"""A PostgreSQL server as database: the processes of many machines share it."""

from headwater.adapters.postgres.database import PostgresDatabase

__all__ = ["PostgresDatabase"]
