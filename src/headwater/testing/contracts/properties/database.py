"""A database beside a model: whatever is done to both, both answer the same and show the same."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import entry_points
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from headwater.checkpoint import Consuming
from headwater.clock import Clock
from headwater.database import Answer, Database, Facts, InlineFold, WriteSet, judge, needs
from headwater.lease import Lease
from headwater.store import Committed
from headwater.table import Table
from headwater.testing.contracts.database.case import DatabaseCase
from headwater.testing.contracts.database.tables import count_fold, count_keys
from headwater.testing.contracts.database.values import EVERYTHING, LINES, TIME, TOTALS
from headwater.testing.contracts.properties.search import Machine, Properties
from headwater.testing.contracts.properties.seeing import Ranks, facts_of, ranks_of, see, told
from headwater.testing.contracts.properties.writes import CONSUMERS, LEASES, OWNERS, aimed, asking, commits

Result = TypeVar("Result")

COUNTED = InlineFold(TOTALS, count_keys, count_fold)
TABLES = (TOTALS, LINES, EVERYTHING)
LONG = 3_600.0


class Undone(Exception):
    """Raised within a block that is to be undone."""


class DatabaseProperties(DatabaseCase, Properties):
    """A database shows and answers what the model does, whatever is done to both; each step is a rule of the machine."""

    def model(self, clock: Clock) -> Database:
        """The model: the database in memory."""
        (found,) = entry_points(group="headwater.databases", name="memory")
        database: Database = found.load()(clock)
        return database

    def test_it_does_as_the_model_does(self) -> None:
        self.search(lambda: DatabaseMachine(self))


class DatabaseMachine(Machine):
    """The subject and the model, and the ids of all messages that were told to be committed, in order."""

    def __init__(self, case: DatabaseProperties) -> None:
        super().__init__()
        self.case = case
        self.model = case.model(self.clock)
        self.subject = self.run(case.make(self.folder, self.clock))
        self.committed: list[str] = []
        self.leases: dict[str, tuple[Lease, Lease]] = {}
        self.epochs: dict[str, int] = {}
        self.folding = False
        self.sets = 0

    async def end(self) -> None:
        """Close both."""
        await self.model.close()
        await self.subject.close()

    async def both(self, do: Callable[[Database], Awaitable[Result]]) -> tuple[Result, Result]:
        """Do the same to the subject and to the model."""
        return await do(self.subject), await do(self.model)

    # --- what is done ---

    @initialize(folding=st.booleans())
    def begin(self, folding: bool) -> None:
        """Tables, and perhaps a read model that is folded inline."""
        self.folding = folding
        self.run(self._begin())

    @rule(sets=commits)
    def commit(self, sets: list[WriteSet]) -> None:
        """Several sets at once: some stand, some fall, some build on others."""
        self.run(self._commit(sets))

    @rule(parts=st.lists(st.tuples(commits, st.booleans()), max_size=3), kept=st.booleans())
    def transact(self, parts: list[tuple[list[WriteSet], bool]], kept: bool) -> None:
        """An interactive transaction of savepoints; each part may be undone, and the whole."""
        self.run(self._transact(parts, kept))

    @rule()
    def restart(self) -> None:
        """Close both and open them again."""
        self.run(self._restart())

    @rule(name=st.sampled_from(LEASES), owner=st.sampled_from(OWNERS))
    def acquire(self, name: str, owner: str) -> None:
        """Ask for a lease, as one of two processes."""
        self.run(self._acquire(name, owner))

    @rule(name=st.sampled_from(LEASES))
    def release(self, name: str) -> None:
        """Give a lease up."""
        for lease in self.leases.pop(name, ()):
            self.run(lease.release())

    @rule(before=st.integers(TIME, TIME + 6))
    def forget_keys(self, before: int) -> None:
        """Forget old command keys."""
        ours, theirs = self.run(self.both(lambda database: database.forget_keys(before)))
        assert ours == theirs

    @rule(table=st.sampled_from(TABLES), made=st.booleans())
    def remake(self, table: Table, made: bool) -> None:
        """Drop a table, and perhaps make it again."""
        self.run(self.both(lambda database: database.drop_table(table)))
        if made:
            self.run(self.both(lambda database: database.create_table(table)))

    @rule(names=st.lists(st.sampled_from(CONSUMERS), unique=True))
    def register(self, names: list[str]) -> None:
        """Write down other consumers."""
        consumers = [Consuming(name, "log", "handler", [name]) for name in names]
        self.run(self.both(lambda database: database.register(consumers)))

    # --- what must hold ---

    @invariant()
    def both_show_the_same(self) -> None:
        """All that can be read is the same."""
        ours, theirs = self.run(self.both(see))
        for name, value in theirs.items():
            assert ours[name] == value, name

    @invariant()
    def the_log_is_what_was_told(self) -> None:
        """Each message that was told to be committed is there, once and in order, and no other."""
        assert [one.id for one in self.run(self.subject.read(0, 10_000))] == self.committed

    # --- how ---

    async def _begin(self) -> None:
        await self.model.open()
        for table in TABLES:
            await self.both(lambda database, table=table: database.create_table(table))  # type: ignore[misc]
        await self._fold()

    async def _fold(self) -> None:
        for database in (self.subject, self.model):
            database.fold_inline([COUNTED] if self.folding else [])

    async def _restart(self) -> None:
        await self.subject.close()
        self.subject = await self.case.reopen(self.subject)
        await self.model.close()
        await self.model.open()
        self.leases.clear()
        await self._fold()

    async def _acquire(self, name: str, owner: str) -> None:
        ours, theirs = await self.both(lambda database: database.acquire(name, owner, LONG))
        assert (ours and ours.epoch) == (theirs and theirs.epoch)
        if ours is not None and theirs is not None:
            self.epochs[name] = ours.epoch
            self.leases[name] = ours, theirs

    async def _facts(self, sets: Sequence[WriteSet]) -> Facts:
        return await facts_of(self.model, needs(sets), self.epochs)

    def _aimed(self, sets: Sequence[WriteSet], facts: Facts) -> list[WriteSet]:
        """The sets, each as if those before it were judged."""
        found: list[WriteSet] = []
        for one in sets:
            self.sets += 1
            found.append(aimed(one, facts, found[-1] if found else None, self.sets))
            judge(found[-1:], facts)
        return found

    async def _commit(self, sets: Sequence[WriteSet]) -> None:
        writes = self._aimed(sets, await self._facts(sets))
        ours, theirs = await self.both(lambda database: _commit(database, writes))
        _same(ours, theirs, await ranks_of(self.subject), await ranks_of(self.model))
        self.committed += _ids(writes, theirs)

    async def _transact(self, parts: Sequence[tuple[list[WriteSet], bool]], kept: bool) -> None:
        facts = await self._facts([one for sets, _ in parts for one in sets])
        prepared: list[tuple[list[WriteSet], bool]] = []
        for sets, stays in parts:
            tried = copy.deepcopy(facts)
            prepared.append((self._aimed(sets, tried), stays))
            facts = tried if stays else facts
        ours, theirs = await self.both(lambda database: _interact(database, prepared, kept))
        ranks = (await ranks_of(self.subject), await ranks_of(self.model)) if kept else (None, None)
        for (writes, stays), our, their in zip(prepared, ours, theirs, strict=True):
            _same(our, their, *(ranks if stays else (None, None)))
            if kept and stays:
                self.committed += _ids(writes, their)


async def _commit(database: Database, writes: Sequence[WriteSet]) -> list[Answer]:
    positions = list(await ranks_of(database))
    return await database.commit([asking(one, positions) for one in writes])


async def _interact(database: Database, parts: Sequence[tuple[list[WriteSet], bool]], kept: bool) -> list[list[Answer]]:
    answers: list[list[Answer]] = []
    positions = list(await ranks_of(database))
    before = await database.head()
    try:
        async with database.transaction() as transaction:
            for writes, stays in parts:
                try:
                    async with transaction.savepoint():
                        answers.append(transaction.write([asking(one, positions) for one in writes]))
                        if not stays:
                            raise Undone
                except Undone:
                    pass
            assert await database.head() == before, "nobody sees an open transaction"
            if not kept:
                raise Undone
    except Undone:
        pass
    return answers


def _same(ours: Sequence[Answer], theirs: Sequence[Answer], our_ranks: Ranks | None, their_ranks: Ranks | None) -> None:
    assert [told(answer, our_ranks) for answer in ours] == [told(answer, their_ranks) for answer in theirs]


def _ids(writes: Sequence[WriteSet], answers: Sequence[Answer]) -> list[Any]:
    return [
        draft.id
        for one, answer in zip(writes, answers, strict=True)
        if isinstance(answer, Committed) and not answer.repeated
        for append in one.appends
        for draft in append.drafts
    ]
