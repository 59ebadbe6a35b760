"""What must hold after every commit of a simulated service, and after every publish of its relay."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headwater.adapters.memory import MemoryFile
from headwater.adapters.memory.writing import LEASES
from headwater.app.wiring import Plan
from headwater.channel import Publication
from headwater.database import Answer, WriteSet
from headwater.inbox import Mark
from headwater.message import Recorded
from headwater.outbox import destination, sender, service_of, topic_of
from headwater.store import Committed
from headwater.wire import from_headers

Violated = Callable[[str], None]
Taken = tuple[str, str]
"""A consumer and a stream."""


class Safety:
    """Follows one service from outside: a model of its inbox beside its log, moved on by each write set that stood."""

    def __init__(self, service: str, files: Mapping[str, MemoryFile], violated: Violated) -> None:
        self.service = service
        self.plans: dict[str, Plan] = {}
        self.log: list[Recorded] = files[service].log
        self.done: dict[Taken, list[int]] = defaultdict(list)
        self.held: dict[Taken, set[int]] = defaultdict(set)
        self.news: Callable[[Recorded], None] = lambda _: None
        self._files = files
        self._file = files[service]
        self._violated = violated
        self._read = 0
        self._versions: dict[str, int] = {}
        self._ids: set[str] = set()
        self._marks: dict[Taken, int] = {}
        self._checkpoints: dict[str, int] = {}
        self._published: dict[str, int] = {}
        self._epoch = 0

    # --- the database ---

    def committed(self, who: str, writes: Sequence[WriteSet], answers: Sequence[Answer]) -> None:
        """A commit was written: look at what it has changed."""
        self._read_log()
        for write, answer in zip(writes, answers, strict=True):
            if isinstance(answer, Committed) and not answer.repeated:
                self._check_lease(who, write)
                self._move_inbox(write)
                self._check_custody(write)

    def _read_log(self) -> None:
        for one in self.log[self._read :]:
            self._read += 1
            known = self._versions.get(one.stream, 0)
            if (one.position, one.version, one.previous) != (self._read, known + 1, known):
                self._violated(
                    f"{one.stream}@{one.version} at {one.position} follows version {known} at {self._read - 1}"
                )
            if one.id in self._ids:
                self._violated(f"{one.stream}@{one.version} is in the log twice: {one.type} {one.id}")
            self._versions[one.stream] = one.version
            self._ids.add(one.id)
            self.news(one)

    def _check_lease(self, who: str, write: WriteSet) -> None:
        """Only who has the lease may write what needs it."""
        names = {write.fence.lease} if write.fence else set()
        names |= {one.name for one in write.checkpoints if one.name in self.plans}
        if write.note is not None and write.note.feed.endswith("/held"):
            names.add(write.note.feed.removesuffix("/held"))
        for name in names:
            owner, epoch, _ = self._file.table(LEASES).get(name, ("", 0, 0))
            if owner not in ("", who) or (write.fence and write.fence.epoch != epoch):
                self._violated(f"{who} wrote under the lease {name}, which {owner or 'nobody'} has at epoch {epoch}")

    def _move_inbox(self, write: WriteSet) -> None:
        for one in write.releases:
            self.held[one.consumer, one.stream].discard(one.version)
        for row in write.holds:
            self.held[row.consumer, row.key].add(row.message.version)
        for consumer, stream, version in write.journal:
            done = self.done[consumer, stream]
            if done and version <= done[-1]:
                self._violated(f"{consumer} took {stream}@{version} after {stream}@{done[-1]}")
            done.append(version)
            if any(held < version for held in self.held[consumer, stream]):
                self._violated(f"{consumer} took {stream}@{version} and holds {sorted(self.held[consumer, stream])}")

    def _check_custody(self, write: WriteSet) -> None:
        """What a mark or a checkpoint has passed is done or held."""
        for mark in write.marks:
            self._check_mark(mark)
        for place in write.checkpoints:
            before = self._checkpoints.get(place.name, 0)
            if place.position < before:
                self._violated(f"the checkpoint {place.name} fell from {before} to {place.position}")
            self._checkpoints[place.name] = place.position
            if place.name in self.plans:
                for one in self.log[before : place.position]:
                    self._account(place.name, one, logged=True)

    def _check_mark(self, mark: Mark) -> None:
        before = self._marks.get((mark.consumer, mark.stream), 0)
        if mark.version < before:
            self._violated(f"the mark of {mark.consumer} on {mark.stream} fell from {before} to {mark.version}")
        self._marks[mark.consumer, mark.stream] = mark.version
        stream = self._files[service_of(mark.stream)].streams.get(mark.stream, [])
        for one in stream[before : mark.version]:
            self._account(mark.consumer, one, logged=False)

    def _account(self, consumer: str, one: Recorded, *, logged: bool) -> None:
        if not self.wants(consumer, one, logged=logged) or one.version in self.done[consumer, one.stream]:
            return
        if one.version not in self.held[consumer, one.stream]:
            self._violated(f"{consumer} passed {one.stream}@{one.version}, which is neither done nor held")

    def wants(self, consumer: str, one: Recorded, *, logged: bool) -> bool:
        """Whether a consumer of this service has to take a message, from its own log or from the channel."""
        plan = self.plans[consumer]
        fed: Any = plan.logged and is_ours(one, self.service, consumer) if logged else topic_of(one, "") in plan.topics
        return bool(fed and plan.worker.wants(one))

    # --- the channel ---

    def published(self, who: str, publications: Sequence[Publication], producer: str, epoch: int) -> None:
        """The channel has taken messages."""
        if not producer:
            return
        if epoch < self._epoch:
            self._violated(f"{who} published at epoch {epoch}, and {self._epoch} was there before")
        self._epoch = max(self._epoch, epoch)
        for one in publications:
            known, said = self._published.get(one.key, 0), from_headers(one.headers, one.body, 0)
            told = said.kind == "control"  # a chain of tallies may begin anywhere: who has none of it asks
            begins = told and not known
            before = said.previous if told else said.version - 1
            if before > known and not begins:
                self._violated(f"{who} published {one.key}@{said.version}, and nothing between it and {known}")
            self._published[one.key] = max(known, said.version)


def is_ours(one: Recorded, service: str, consumer: str) -> bool:
    """Whether a message of the own log is for a consumer: an event, its timer, or what is addressed to the service."""
    if one.kind == "timer":
        return sender(one.stream) == consumer
    return one.kind == "event" or destination(one.stream) == service
