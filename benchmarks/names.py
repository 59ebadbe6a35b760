"""The subjects by name."""

from typing import Final

OURS: Final = "headwater"
PEER: Final = "eventsourcing"
EMMETT: Final = "Emmett"
RAW: Final = "raw driver"
GROUP: Final = "raw group commit"
FASTSTREAM: Final = "FastStream"
CLIENT: Final = "raw client"
AWAITED: Final = "raw client, commits awaited"
