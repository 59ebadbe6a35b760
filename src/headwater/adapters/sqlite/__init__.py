"""SQLite files as database and channel: several processes of one machine share them, and no server is needed."""

from headwater.adapters.sqlite.channel import SqliteChannel
from headwater.adapters.sqlite.database import SqliteDatabase

__all__ = ["SqliteChannel", "SqliteDatabase"]
