"""Says now and then what the relay has published, topic by topic, so that a lost last message shows as well. ADR 0012.

A tally is due two seconds after the first news of its topic; without news, ten seconds after the log has moved, so that no
chain is far behind it; and where nothing moves the last one is said again, less and less often. How far each topic is
told is noted from time to time: a new relay begins there, for what was told already may be told again.
"""

from __future__ import annotations

from collections.abc import Iterable

from headwater.channel import Publication, Route
from headwater.clock import Clock
from headwater.database import WriteSet, stands
from headwater.inbox import Note
from headwater.lease import Fence
from headwater.message import Recorded
from headwater.relay.leaving import Leaving
from headwater.tail import Tail
from headwater.tally import BYTES, Count

NEWS = 2.0
QUIET = 10.0
AGAIN = (5.0, 30.0, 120.0, 300.0)
KEPT = 10.0
PAGE = 1_000
FAR = 20_000


class Topic:
    """What is told of one topic: what is counted and not told, what was told last, and when (monotonic seconds)."""

    def __init__(self, count: Count, now: float) -> None:
        self.count = count
        self.last: Publication | None = None
        self.since = self.told = now
        self.repeats = 0

    def is_due(self, at: int, now: float) -> bool:
        """Whether it is time for a tally, with the log published up to a position."""
        if self.count.prior < at:
            return now - (self.since if self.count else self.told) >= (NEWS if self.count else QUIET)
        return self.last is not None and now - self.told >= AGAIN[min(self.repeats, len(AGAIN) - 1)]


class Tallying:
    """Counts what the relay publishes and gives it the tallies that are due; `topics` are those that the service may publish on."""

    def __init__(self, leaving: Leaving, topics: Iterable[str], log: Tail, clock: Clock) -> None:
        self.leaving = leaving
        self.topics = tuple(topics)
        self.log = log
        self.clock = clock
        self.name = f"{leaving.name}/tallies"
        self.at = self._from = 0
        self._begun = False
        self._topics: dict[str, Topic] = {}
        self._untold: list[Publication] = []
        self._noted: dict[str, int] = {}
        self._noted_at = 0.0

    def forget(self) -> None:
        """Another member may have told more since."""
        self._begun = False

    async def catch_up(self, position: int) -> None:
        """Count what the log has up to a position at which the relay goes on."""
        if not self._begun:
            await self._begin(position)
        while self.at < position and (page := await self.log.read(self.at, PAGE)):
            page = [one for one in page if one.position <= position]
            self.add(await self.leaving.published(page))
            self.moved(page[-1].position if page else position)
        self.moved(position)

    async def _begin(self, position: int) -> None:
        """Begin where the last relay noted that all topics were told; at the last message at least, to say it again."""
        self._noted = dict(await self.leaving.database.noted(self.name))
        self._noted_at = self.clock.monotonic()
        last = max(position - 1, 0)
        self.at = self._from = min(max(min(self._noted.values(), default=0), position - FAR), last)
        others = [topic for topic in self._noted if topic not in self.topics]
        gone = {one.what for one in await self.leaving.channel.examine([Route(topic) for topic in others])}
        self._topics, self._untold = {}, []
        for topic in (*self.topics, *(topic for topic in others if topic not in gone)):
            self._add_topic(topic, min(max(self._noted.get(topic, 0), self._from), last))
        self._begun = True

    def _add_topic(self, name: str, told: int) -> Topic:
        most = min(BYTES, self.leaving.channel.capabilities.max_bytes // 2)
        found = self._topics[name] = Topic(Count(told, most), self.clock.monotonic())
        return found

    def add(self, published: Iterable[tuple[str, Recorded]]) -> None:
        """Messages of the log were published, each on its topic, in order; or some below that were held until now."""
        now = self.clock.monotonic()
        topics = self._topics
        for name, message in published:
            topic = topics.get(name) or self._add_topic(name, self._from)
            count = topic.count
            if count.full:
                self.moved(message.position - 1)
                if self.at > count.prior:
                    self._close(name, topic)
            if not count:
                topic.since = now
            count.add(message)

    def moved(self, position: int) -> None:
        """All that leaves up to a position of the log is published and added, or held."""
        self.at = max(self.at, position)

    def due(self, *, all_news: bool = False) -> list[Publication]:
        """The tallies that are to be published now, in order; first those that could not be before."""
        now = self.clock.monotonic()
        for name, topic in sorted(self._topics.items()) if not self._untold else ():
            if topic.is_due(self.at, now) or (all_news and topic.count):
                self._tell(name, topic)
        return self._untold

    def _tell(self, name: str, topic: Topic) -> None:
        if topic.count.prior < self.at:
            topic.repeats = 0
            self._close(name, topic)
        elif topic.last is not None:
            topic.repeats += 1
            topic.told = self.clock.monotonic()
            self._untold.append(topic.last)

    def _close(self, name: str, topic: Topic) -> None:
        tally = topic.count.close(self.leaving.service, name, self.at, self.clock)
        topic.last = self.leaving.publication(tally, name)
        topic.told = self.clock.monotonic()
        self._untold.append(topic.last)

    async def told(self, fence: Fence | None) -> None:
        """They are published."""
        self._untold = []
        if self.clock.monotonic() - self._noted_at < KEPT:
            return
        noted = {name: topic.count.prior for name, topic in self._topics.items()}
        if noted != self._noted:
            note = Note(self.name, list(noted.items()))
            [answer] = await self.leaving.database.commit([WriteSet(fence=fence, note=note)])
            stands(answer)
            self._noted, self._noted_at = noted, self.clock.monotonic()
