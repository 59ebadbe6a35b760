"""The faults of a simulated universe: which strike, drawn from its seed, and a database and a channel that suffer them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from headwater.adapters.memory import MemoryBroker, MemoryChannel, MemoryDatabase, MemoryFile
from headwater.channel import Delivery, Publication, Start
from headwater.database import Answer, Failed, WriteSet
from headwater.errors import ChannelError, DatabaseError, Unknown
from tests.fault.rigs.simulate_loop import MachineClock
from tests.fault.rigs.simulate_safety import Safety
from tests.fault.rigs.simulate_trace import Trace, place_of

AT_COMMIT = {
    "crash before a commit": 0.01,
    "crash after a commit": 0.01,
    "database error": 0.012,
    "database refuses": 0.006,
    "answer unknown, not written": 0.006,
    "answer unknown, written": 0.012,
    "slow disk": 0.08,
    "stopped process": 0.003,
    "rebalance": 0.01,
}
AT_PUBLISH = {
    "crash before a publish": 0.01,
    "crash after a publish": 0.015,
    "broker error": 0.03,
    "answer of the broker lost": 0.03,
    "slow broker": 0.08,
    "stopped process": 0.01,
}
AT_MAIL = {"mail is closed": 0.1, "no answer from the mail": 0.05}
ALONE = {"crash at a point": 0.001, "drop": 0.03, "duplicate": 0.15, "reorder": 0.15, "delay": 0.15}
AT_FETCH = {"fetch fails": 0.01}
AT_ACKNOWLEDGE = {"acknowledge fails": 0.02, "answer to an acknowledge lost": 0.02}
SLOW = ("slow disk", "slow broker", "stopped process", "rebalance")
MOODS = (0.0, 0.5, 1.0, 1.0, 2.0)
"""Each universe has its own mixture: some faults are absent, some frequent."""


class Killed(BaseException):
    """The process ends here: nothing catches it."""


class Member(Protocol):
    """A process, as what it works with knows it."""

    name: str
    clock: MachineClock

    def die(self, why: str) -> None: ...

    def lose_partitions(self) -> None: ...


class Faults:
    """Draws faults for as long as they are `on`, and counts those that took effect."""

    def __init__(self, chance: random.Random, trace: Trace) -> None:
        self.on = True
        self.chance = chance
        self.trace = trace
        self.struck: Counter[str] = Counter()
        kinds = AT_COMMIT | AT_PUBLISH | AT_FETCH | AT_ACKNOWLEDGE | AT_MAIL | ALONE
        self._moods = {kind: chance.choice(MOODS) for kind in kinds}

    def draw(self, kinds: dict[str, float]) -> str:
        """One of these faults, or none."""
        if self.on:
            left = self.chance.random()
            for kind, share in kinds.items():
                left -= share * self._moods[kind]
                if left < 0:
                    return kind
        return ""

    def strikes(self, kind: str) -> bool:
        """Whether this one does."""
        return self.on and self.chance.random() < ALONE[kind] * self._moods[kind]

    @property
    def grave(self) -> int:
        """How many faults took effect, besides what was only slow."""
        return sum(times for kind, times in self.struck.items() if not kind.startswith("slow"))

    def hit(self, kind: str, who: str, what: str = "") -> None:
        """A fault took effect."""
        self.struck[kind] += 1
        self.trace.note(who, f"! {kind}{': ' if what else ''}{what}")

    def kill(self, kind: str, member: Member, where: str = "") -> None:
        """End a process. Raises Killed."""
        self.hit(kind, member.name, where)
        member.die(kind)
        raise Killed

    async def dawdle(self, kind: str, member: Member) -> None:
        """Wait where something is slow, or the process is stopped for longer than its leases may live."""
        seconds = self.chance.uniform(0.001, 0.1)
        if kind == "stopped process":
            seconds = self.chance.uniform(1.0, 20.0)
            member.clock.stopped_until = member.clock.monotonic() + seconds
        if kind in ("stopped process", "rebalance"):
            member.lose_partitions()
        self.hit(kind, member.name, f"{seconds:.3f} s")
        await asyncio.sleep(seconds)


class FaultyDatabase(MemoryDatabase):
    """The database of a process: commits fail, are slow, or are its last."""

    def __init__(self, member: Member, file: MemoryFile, faults: Faults, safety: Safety) -> None:
        super().__init__(member.clock, file)
        self._member = member
        self._faults = faults
        self._safety = safety

    async def commit(self, writes: Sequence[WriteSet]) -> list[Answer]:
        faults, member = self._faults, self._member
        kind = faults.draw(AT_COMMIT)
        if kind in SLOW:
            await faults.dawdle(kind, member)
        await member.clock.gate()
        if kind == "crash before a commit":
            faults.kill(kind, member)
        if kind == "database error":
            faults.hit(kind, member.name)
            raise DatabaseError("the database stumbles")
        if kind == "database refuses":
            faults.hit(kind, member.name)
            return [Failed(DatabaseError("it cannot")) for _ in writes]
        if kind == "answer unknown, not written":
            faults.hit(kind, member.name)
            return [Unknown(cause="the cable was cut") for _ in writes]
        answers = await super().commit(writes)
        faults.trace.commit(member.name, writes, answers)
        self._safety.committed(member.name, writes, answers)
        if kind == "crash after a commit":
            faults.kill(kind, member)
        if kind == "answer unknown, written":
            faults.hit(kind, member.name)
            return [Unknown(cause="the cable was cut") for _ in writes]
        return answers


class FaultyChannel(MemoryChannel):
    """The channel of a process: messages are lost, repeated, late and out of order, and the broker stumbles."""

    def __init__(
        self, member: Member, broker: MemoryBroker, faults: Faults, safety: Safety, lost: dict[str, Publication]
    ) -> None:
        super().__init__(member.clock, broker)
        self._member = member
        self._faults = faults
        self._safety = safety
        self._lost = lost

    async def publish(
        self, publications: Sequence[Publication], *, producer: str = "", position: int = 0, epoch: int = 0
    ) -> dict[int, str]:
        faults, member = self._faults, self._member
        kind = faults.draw(AT_PUBLISH)
        if kind in SLOW:
            await faults.dawdle(kind, member)
        await member.clock.gate()
        if kind == "crash before a publish":
            faults.kill(kind, member)
        if kind == "broker error":
            faults.hit(kind, member.name)
            raise ChannelError("the broker stumbles")
        sent = self._garbled(publications)
        answer = await super().publish(sent, producer=producer, position=position, epoch=epoch)
        self._found(sent)
        faults.trace.publish(member.name, sent)
        self._safety.published(member.name, publications, producer, epoch)
        if kind == "crash after a publish":
            faults.kill(kind, member)
        if kind == "answer of the broker lost":
            faults.hit(kind, member.name)
            raise ChannelError("the answer was lost")
        return answer

    def _garbled(self, publications: Sequence[Publication]) -> list[Publication]:
        """What the broker really keeps of what it was given."""
        faults, who = self._faults, self._member.name
        sent = [one for one in publications if not self._loses(one)]
        if sent and faults.strikes("duplicate"):
            again = faults.chance.choices(sent, k=faults.chance.randint(1, 3))
            faults.hit("duplicate", who, f"{len(again)} messages")
            sent += again
        if len(sent) > 1 and faults.strikes("reorder"):
            before = list(sent)
            faults.chance.shuffle(sent)
            if sent != before:
                faults.hit("reorder", who)
        if sent and faults.strikes("delay"):
            faults.hit("delay", who)
            most = faults.chance.choice((0.1, 3.0))
            sent = [msgspec.structs.replace(one, delay=faults.chance.random() * most) for one in sent]
        return sent

    def _loses(self, one: Publication) -> bool:
        """Whether a message is lost. Of each stream the last is kept, to come late: what is after it would show the gap."""
        if not self._faults.strikes("drop"):
            return False
        self._faults.hit("drop", self._member.name, place_of(one))
        if not one.group and version_of(one) > self._last_lost(one):
            self._lost[one.key] = one
        return True

    def _found(self, sent: Sequence[Publication]) -> None:
        """What was lost has come, or shows by what came after it."""
        for one in sent:
            if not one.group and version_of(one) >= self._last_lost(one):
                self._lost.pop(one.key, None)

    def _last_lost(self, one: Publication) -> int:
        lost = self._lost.get(one.key)
        return version_of(lost) if lost is not None else 0

    async def subscribe(self, group: str, topics: Sequence[str], member: str, start: Start = "beginning") -> Any:
        found = await super().subscribe(group, topics, member, start)
        fetch, acknowledge = found.fetch, found.acknowledge
        faults, who = self._faults, self._member

        async def faulty_fetch(limit: int) -> list[Delivery]:
            await who.clock.gate()
            if faults.draw(AT_FETCH):
                faults.hit("fetch fails", who.name)
                raise ChannelError("the broker stumbles")
            return await fetch(limit)

        async def faulty_acknowledge(deliveries: Sequence[Delivery]) -> None:
            kind = faults.draw(AT_ACKNOWLEDGE)
            if kind == "answer to an acknowledge lost":
                await acknowledge(deliveries)
            if kind:
                faults.hit(kind, who.name)
                raise ChannelError("the broker stumbles")
            await acknowledge(deliveries)

        found.fetch, found.acknowledge = faulty_fetch, faulty_acknowledge  # type: ignore[method-assign]
        return found


def version_of(one: Publication) -> int:
    """The version that a publication carries."""
    return int(one.headers["streamversion"])
