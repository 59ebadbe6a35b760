"""The contracts in memory: for tests and simulations, with the same semantics as the adapters that last."""

from headwater.adapters.memory.broker import MemoryBroker
from headwater.adapters.memory.channel import MemoryChannel
from headwater.adapters.memory.database import MemoryDatabase
from headwater.adapters.memory.file import MemoryFile

__all__ = ["MemoryBroker", "MemoryChannel", "MemoryDatabase", "MemoryFile"]
