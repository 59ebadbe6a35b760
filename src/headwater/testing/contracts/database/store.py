"""Promises of the log: versions, positions, reads."""

from __future__ import annotations

from headwater.database import Database, WriteSet
from headwater.message import Recorded
from headwater.store import ANY, Append, past
from headwater.testing.clock import VirtualClock
from headwater.testing.contracts.database.case import DatabaseCase, promise
from headwater.testing.contracts.database.values import (
    A,
    B,
    appending,
    commit_one,
    committed,
    committing,
    draft,
    drafts,
    versions,
)

MEGABYTE = 1024 * 1024


class StorePromises(DatabaseCase):
    """What is appended is there as it was given, in one order."""

    @promise
    async def test_an_empty_log_has_head_0_and_nothing_to_read(self, database: Database, clock: VirtualClock) -> None:
        assert await database.head() == 0
        assert await database.read(0, 10) == []
        assert await database.read(100, 10, backwards=True) == []
        assert await database.read_stream(A, 0, 10) == []
        assert await database.read_streams({A: 0}) == {}
        assert await database.commit([]) == []

    @promise
    async def test_versions_are_contiguous_from_1_in_each_stream(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, appending(A, count=3), appending(B, count=2))
        await committing(database, appending(A, count=2))
        assert await versions(database, A) == [1, 2, 3, 4, 5]
        assert await versions(database, B) == [1, 2]

    @promise
    async def test_positions_rise_by_commit_then_set_then_message(
        self, database: Database, clock: VirtualClock
    ) -> None:
        await committing(database, appending(B), appending(A, count=2))
        await committing(database, appending(B, count=2))
        log = await database.read(0, 10)
        assert [one.position for one in log] == sorted({one.position for one in log})
        assert [(one.stream, one.version) for one in log] == [(B, 1), (A, 1), (A, 2), (B, 2), (B, 3)]
        assert log[0].position >= 1
        assert await database.head() == log[-1].position

    @promise
    async def test_an_answer_says_the_position_and_version_of_its_last_message(
        self, database: Database, clock: VirtualClock
    ) -> None:
        first, second = await committing(database, appending(A, count=3), appending(B, count=2))
        log = await database.read(0, 10)
        assert (first.position, first.version, first.repeated) == (log[2].position, 3, False)
        assert (second.position, second.version, second.repeated) == (log[4].position, 2, False)

    @promise
    async def test_a_message_reads_back_as_it_was_appended(self, database: Database, clock: VirtualClock) -> None:
        given = draft(
            b'{"owner":"Zo\xc3\xab"}',
            kind="command",
            type="mail.Send",
            type_version=3,
            codec=2,
            time=123,
            meta=b"{}",
        )
        answer = committed(await commit_one(database, WriteSet(appends=[Append(A, 0, [draft(), given])])))
        expected = Recorded(
            answer.position, A, 2, "command", given.id, "mail.Send", 3, 2, 123, 1, b'{"owner":"Zo\xc3\xab"}', b"{}"
        )
        assert (await database.read_stream(A, 1, 1)) == [expected]
        assert (await database.read(answer.position - 1, 1)) == [expected]
        assert (await database.read_streams({A: 1})) == {A: [past(expected)]}
        assert type((await database.read_stream(A, 1, 1))[0].data) is bytes

    @promise
    async def test_previous_is_the_version_before(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, appending(A, count=2), appending(A))
        assert [one.previous for one in await database.read_stream(A, 0, 10)] == [0, 1, 2]

    @promise
    async def test_every_kind_of_message_is_stored(self, database: Database, clock: VirtualClock) -> None:
        kinds = ["event", "command", "reply", "timer", "control"]
        await committing(database, WriteSet(appends=[Append(A, 0, [draft(kind=kind) for kind in kinds])]))
        assert [one.kind for one in await database.read(0, 10)] == kinds

    @promise
    async def test_unicode_is_kept_in_every_text(self, database: Database, clock: VirtualClock) -> None:
        stream = "Zürich:bank.Konto/Ωμέγα 💧 'quote' \"x\" %_\\ /a\tb"
        odd = draft(
            type="bank.Kontoeröffnet-💧", data='{"naïve":"\u2028 💧"}'.encode(), meta='{"actor":"Ζωή"}'.encode()
        )
        await committing(database, WriteSet(appends=[Append(stream, 0, [odd])]), appending(stream.upper()))
        found = (await database.read_stream(stream, 0, 10))[0]
        assert (found.stream, found.type, found.data, found.meta) == (stream, odd.type, odd.data, odd.meta)
        assert await versions(database, stream) == [1]

    @promise
    async def test_empty_data_and_data_that_is_no_text_are_kept(self, database: Database, clock: VirtualClock) -> None:
        odd = [b"", b"\x00", bytes(range(256)), b"\xff\xfe"]
        await committing(database, WriteSet(appends=[Append(A, 0, [draft(data=data, meta=data) for data in odd])]))
        found = await database.read_stream(A, 0, 10)
        assert [one.data for one in found] == odd
        assert [one.meta for one in found] == odd

    @promise
    async def test_a_mebibyte_of_data_is_kept(self, database: Database, clock: VirtualClock) -> None:
        data = b'"' + b"x" * (MEGABYTE - 2) + b'"'
        await committing(database, WriteSet(appends=[Append(A, 0, [draft(data=data), draft(data=b"{}")])]))
        database = await self.again(database)
        assert [one.data for one in await database.read(0, 10)] == [data, b"{}"]

    @promise
    async def test_ten_thousand_messages_go_into_one_append(self, database: Database, clock: VirtualClock) -> None:
        one = appending(A, 0, 10_000)
        (answer,) = await committing(database, one)
        assert answer.version == 10_000
        assert await versions(database) == list(range(1, 10_001))
        assert len(await database.read(0, 20_000)) == 10_000
        assert (await database.read_stream(A, 9_999, 10))[0].id == one.appends[0].drafts[-1].id

    @promise
    async def test_large_numbers_are_kept(self, database: Database, clock: VirtualClock) -> None:
        large = draft(time=2**62, type_version=2**31 - 1)
        await committing(database, WriteSet(appends=[Append(A, 0, [large])]))
        found = (await database.read(0, 1))[0]
        assert (found.time, found.type_version) == (2**62, 2**31 - 1)

    @promise
    async def test_an_append_of_nothing_writes_nothing(self, database: Database, clock: VirtualClock) -> None:
        committed(await commit_one(database, WriteSet(appends=[Append(A, 0, [])])))
        assert await database.head() == 0
        assert await versions(database) == []


class ReadPromises(DatabaseCase):
    """Reads give what was asked for: from where, how many, in which direction."""

    @promise
    async def test_read_gives_what_is_above_a_position_in_order(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, appending(A, count=3), appending(B, count=3))
        log = await database.read(0, 100)
        assert len(log) == 6
        assert await database.read(log[1].position, 100) == log[2:]
        assert await database.read(log[-1].position, 100) == []
        assert await database.read(log[-1].position + 1000, 100) == []

    @promise
    async def test_read_gives_no_more_than_the_limit(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, appending(A, count=5))
        log = await database.read(0, 100)
        assert await database.read(0, 2) == log[:2]
        assert await database.read(log[1].position, 2) == log[2:4]
        assert await database.read(0, 5) == log
        assert await database.read(0, 0) == []

    @promise
    async def test_read_backwards_falls_from_below_a_position(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, appending(A, count=5))
        log = await database.read(0, 100)
        assert await database.read(log[-1].position + 1, 100, backwards=True) == log[::-1]
        assert await database.read(log[-1].position, 100, backwards=True) == log[-2::-1]
        assert await database.read(log[3].position, 2, backwards=True) == [log[2], log[1]]
        assert await database.read(log[0].position, 100, backwards=True) == []
        assert await database.read(2**62, 2, backwards=True) == [log[4], log[3]]

    @promise
    async def test_read_stream_gives_one_stream_above_a_version(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, appending(A, count=3), appending(B, count=1), appending(A, count=2))
        assert [one.version for one in await database.read_stream(A, 2, 10)] == [3, 4, 5]
        assert [one.version for one in await database.read_stream(A, 2, 2)] == [3, 4]
        assert await database.read_stream(A, 5, 10) == []
        assert await database.read_stream("bank.Account/", 0, 10) == []
        assert {one.stream for one in await database.read_stream(A, 0, 10)} == {A}

    @promise
    async def test_read_streams_gives_each_above_its_own_version(self, database: Database, clock: VirtualClock) -> None:
        await committing(database, appending(B, count=3), appending(A, count=3), appending("other/c", count=1))
        found = await database.read_streams({B: 1, A: 0, "missing/x": 0})
        assert {stream: [version for version, *_ in some] for stream, some in found.items()} == {
            A: [1, 2, 3],
            B: [2, 3],
        }
        assert await database.read_streams({}) == {}
        assert await database.read_streams({A: 3, B: 7}) == {}

    @promise
    async def test_read_streams_takes_a_thousand_streams(self, database: Database, clock: VirtualClock) -> None:
        names = [f"bank.Account/{number:04}" for number in range(1_000)]
        await committing(database, *(appending(name) for name in names))
        assert sorted(await database.read_streams(dict.fromkeys(names, 0))) == names

    @promise
    async def test_what_is_committed_is_there_after_a_crash_and_reopen(
        self, database: Database, clock: VirtualClock
    ) -> None:
        await committing(database, appending(A, count=2), appending(B))
        log = await database.read(0, 10)
        database = await self.again(database)
        assert await database.read(0, 10) == log
        assert await database.head() == log[-1].position
        (answer,) = await committing(database, WriteSet(appends=[Append(A, 2, drafts(1))]))
        assert answer.position > log[-1].position

    @promise
    async def test_a_log_may_be_read_page_by_page_without_loss(self, database: Database, clock: VirtualClock) -> None:
        for _ in range(7):
            await committing(database, appending(A, ANY, 3), appending(B, ANY, 2))
        pages, after = [], 0
        while page := await database.read(after, 4):
            pages.extend(page)
            after = page[-1].position
        assert pages == await database.read(0, 1_000)
        assert len(pages) == 35
