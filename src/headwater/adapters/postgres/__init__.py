"""A PostgreSQL server as database and channel: the processes of many machines share it."""

from headwater.adapters.postgres.channel import PostgresChannel
from headwater.adapters.postgres.database import PostgresDatabase

__all__ = ["PostgresChannel", "PostgresDatabase"]
