"""What the URL of a Kafka channel says behind its `?`, apart from what keeps others from listening (`security`)."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

Seconds = Annotated[float, Meta(ge=0.0, le=1e9)]
Prefix = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9._-]{0,100}$")]

MAX_BYTES: Final = 1_000_000


class ChannelOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """How a channel uses its cluster; all have defaults that lose nothing."""

    prefix: Prefix = ""
    """Stands before the name of every topic and group."""
    partitions: Annotated[int, Meta(ge=1, le=10_000)] = 8
    """Of a topic that is made."""
    replication: Annotated[int, Meta(ge=0, le=100)] = 0
    """Copies of a topic that is made; 0: three, where there are so many brokers."""
    insync: Annotated[int, Meta(ge=0, le=100)] = 0
    """Copies that must have a message before it is confirmed (min.insync.replicas); 0: one less than there are."""
    retention: Annotated[float, Meta(ge=1.0, le=1e9)] = 7 * 86_400.0
    """Seconds that a topic which is made keeps its messages."""
    max_bytes: Annotated[int, Meta(ge=1_000, le=1_000_000_000)] = MAX_BYTES
    """The largest message, with key and headers."""
    timeout: Annotated[float, Meta(ge=0.1, le=3_600.0)] = 10.0
    """Seconds that a publish may take before it is an error."""
    session: Annotated[float, Meta(ge=0.5, le=1_800.0)] = 6.0
    """Seconds that a member which is not heard of keeps its partitions."""
    drain: Annotated[float, Meta(ge=0.0, le=240.0)] = 10.0
    """Seconds that a member which is to hand over partitions has to settle what it has in hand of them."""
