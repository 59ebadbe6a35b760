"""The memory database and the clock of a test are what the contracts say, to the type checkers."""

from headwater.adapters.memory import MemoryDatabase
from headwater.clock import Clock
from headwater.database import Database
from headwater.testing.clock import VirtualClock

clock: Clock = VirtualClock(seed=1)
database: Database = MemoryDatabase.from_url("memory://", clock)
