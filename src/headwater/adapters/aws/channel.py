"""SNS and SQS as a channel: a FIFO topic for each topic, a FIFO queue for each of its groups, message groups for keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from headwater.adapters.aws.names import Names, tagged
from headwater.adapters.aws.options import AwsOptions, parse_url
from headwater.adapters.aws.publishing import Publisher
from headwater.adapters.aws.queue import Queue
from headwater.adapters.aws.services import Services, together
from headwater.adapters.aws.subscription import AwsSubscription
from headwater.adapters.aws.topology import Topology
from headwater.channel import ChannelCapabilities, Finding, GroupLag, Publication, Route, Start
from headwater.clock import Clock
from headwater.errors import ChannelError

LARGEST: Final = 240 * 1024
"""What surely fits in a message of SNS: text as it is, anything else up to three quarters of it, for it is written in base64."""
PAGE: Final = 1000
PAGES: Final = 100
COUNTS: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesDelayed",
    "ApproximateNumberOfMessagesNotVisible",
)


class AwsChannel:
    """A channel of one account in one region; open one a process. Injected: the clock, for ids and positions."""

    capabilities = ChannelCapabilities(
        delay=False, producer_position=False, durable=True, max_bytes=LARGEST, history=False, ahead=False
    )

    def __init__(self, options: AwsOptions, clock: Clock) -> None:
        fifo = not options.standard
        self.options = options
        self.clock = clock
        self._services = Services(options)
        self._names = Names(options.prefix, fifo=fifo)
        self._topology = Topology(self._services, self._names, fifo=fifo)
        self._publisher = Publisher(self._services, self._names, clock, fifo=fifo)
        self._members: list[AwsSubscription] = []
        self._whose: dict[str, tuple[str, str] | None] = {}

    @classmethod
    def from_url(cls, url: str, clock: Clock) -> AwsChannel:
        """The channel of `aws://?region=eu-west-1`; its options are those of `AwsOptions`."""
        return cls(parse_url(url), clock)

    async def open(self) -> None:
        if not self._services.opened:
            await self._services.open()

    async def close(self) -> None:
        members, self._members = self._members, []
        await together((one.close() for one in members), len(members) or 1)
        await self._services.close()

    async def examine(self, routes: Sequence[Route]) -> list[Finding]:
        return await self._topology.examine(routes)

    async def establish(self, routes: Sequence[Route]) -> list[str]:
        return await self._topology.establish(routes)

    async def publish(
        self, publications: Sequence[Publication], *, producer: str = "", position: int = 0, epoch: int = 0
    ) -> dict[int, str]:
        self._check()
        return await self._publisher.publish(publications, again=bool(producer))

    async def producer_position(self, producer: str) -> int | None:
        self._check()
        return None

    async def subscribe(
        self, group: str, topics: Sequence[str], member: str, start: Start = "beginning"
    ) -> AwsSubscription:
        named = list(dict.fromkeys(topics))
        urls = await together(self._topology.url(group, topic) for topic in named)
        queues = [self._queue(url, group, topic) for url, topic in zip(urls, named, strict=True)]
        subscription = AwsSubscription(self._services, self.clock, f"member {member} of {group}", queues)
        self._members = [one for one in self._members if not one.closed]
        self._members.append(subscription)
        return subscription

    async def lag(self, group: str | None = None) -> list[GroupLag]:
        urls = await self._urls()
        await together(self._learn(url) for url in urls if url not in self._whose)
        known = [(url, whose) for url in urls if (whose := self._whose[url]) and group in (None, whose[0])]
        return await together(self._lag(self._queue(url, *whose)) for url, whose in known)

    # --- lag ---

    async def _urls(self) -> list[str]:
        """The queues whose names begin with the prefix."""
        found: list[str] = []
        more: dict[str, str] = {}
        for _ in range(PAGES):
            page = await self._services.ask(
                "sqs", "list_queues", QueueNamePrefix=self.options.prefix, MaxResults=PAGE, **more
            )
            found += page.get("QueueUrls", ())
            if not page.get("NextToken"):
                break
            more = {"NextToken": page["NextToken"]}
        return found

    async def _learn(self, url: str) -> None:
        told = await self._services.ask("sqs", "list_queue_tags", QueueUrl=url)
        whose = tagged(told.get("Tags", {}))
        ours = whose is not None and url.endswith(
            f"/{self._names.queue(*whose)}"
        )  # or of a prefix that begins with ours
        self._whose[url] = whose if ours else None

    async def _lag(self, queue: Queue) -> GroupLag:
        told = await self._services.ask("sqs", "get_queue_attributes", QueueUrl=queue.url, AttributeNames=list(COUNTS))
        counts = {name: int(told.get("Attributes", {}).get(name, 0)) for name in COUNTS}
        known = [one.oldest(queue.url) for one in self._members]
        if counts[COUNTS[0]]:
            known.append(await queue.peek())
        oldest = min((one for one in known if one is not None), default=None)
        waiting = sum(counts.values())
        return GroupLag(queue.group, queue.topic, waiting, oldest if waiting else None)

    def _queue(self, url: str, group: str, topic: str) -> Queue:
        return Queue(self._services, url, topic, group, fifo=not self.options.standard)

    def _check(self) -> None:
        if not self._services.opened:
            raise ChannelError("the channel is not open")
