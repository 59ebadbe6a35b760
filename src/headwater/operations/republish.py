"""Publishing again what a service has published: for a group that came late, or a channel that has lost something."""

from __future__ import annotations

from msgspec import Struct

from headwater.channel import Channel
from headwater.database import Database
from headwater.errors import ChannelError, NotFound
from headwater.relay import Leaving

PAGE = 1_000


class Republished(Struct, frozen=True):
    """How many messages were published again, and the positions of the first and the last of them; 0 where there was none."""

    messages: int
    first: int
    last: int


async def republish(
    service: str, database: Database, channel: Channel, start: int, *, topic: str = "", group: str = ""
) -> Republished:
    """Publish again, in order, what a service's log has from a position on, as far as its relay has come.

    It may run beside the relay: consumers know what they have taken. Only what goes to `topic`, if it is given, and for `group`
    alone. Raises NotFound where nothing goes to the topic, ChannelError where the channel does not take a message.
    """
    leaving = Leaving(service, database, channel)
    end = await leaving.position()
    at, count, first, last = start - 1, 0, 0, 0
    topics: set[str] = set()
    while at < end and (page := await database.read(at, PAGE)):
        page = [one for one in page if one.position <= end]
        found = await leaving.published(page)
        topics.update(on for on, _ in found)
        chosen = [(on, one) for on, one in found if topic in ("", on)]
        refused = await channel.publish([leaving.publication(one, on, group) for on, one in chosen])
        if refused:
            index, why = next(iter(refused.items()))
            raise ChannelError(f"the message at position {chosen[index][1].position} was refused: {why}")
        if chosen:
            count, first, last = count + len(chosen), first or chosen[0][1].position, chosen[-1][1].position
        at = page[-1].position if page else end
    if topic and not count:
        known = f"; it has published on {', '.join(sorted(topics))}" if topics else ""
        raise NotFound(f"{service} has published nothing on {topic} from position {start} on{known}")
    return Republished(count, first, last)
