"""A group shares its work: each message is with one member at a time; it waits, sees how far it is behind, and may be full."""

from __future__ import annotations

import asyncio

from headwater.channel import Delivery
from headwater.errors import ChannelFull
from headwater.testing.contracts.channel.scene import (
    ChannelCase,
    Scene,
    Taken,
    bodies,
    in_order,
    messages,
    refused,
    scenario,
)

KEYS = 40


def each_once(taken: Taken, count: int) -> bool:
    """Whether every message came, once, and in the order of its key whoever got it."""
    deliveries = [delivery for _, delivery in taken]
    return sorted(bodies(deliveries)) == list(range(count)) and in_order(deliveries)


class Sharing(ChannelCase):
    """Members of a group, waiting, lag and back-pressure."""

    # --- members ---

    @scenario
    async def test_two_members_share_the_work_and_keep_the_order(self, scene: Scene) -> None:
        one = await scene.join("g", "orders")
        await scene.channel.publish(messages("orders", range(200), KEYS))
        taken = await scene.take_all([one], 40)
        two = await scene.join("g", "orders", member="m2", channel=await scene.another())
        count = 200

        async def both_work() -> bool:
            nonlocal count
            await scene.channel.publish(messages("orders", range(count, count + KEYS), KEYS))
            count += KEYS
            batches = [await member.fetch(KEYS) for member in (one, two)]
            keys = [{delivery.key for delivery in batch} for batch in batches]
            assert keys[0].isdisjoint(keys[1]), "a key is in two hands"
            for index, member in enumerate((one, two)):
                await member.acknowledge(batches[index])
                taken.extend((index, delivery) for delivery in batches[index])
            await scene.clock.sleep(0.02)
            return all(keys)

        await scene.until(both_work, "the second member gets its share")
        taken += await scene.take_all([one, two], count - len(taken))
        assert each_once(taken, count)

    @scenario
    async def test_a_key_is_handed_over_after_what_was_fetched_of_it_is_settled(self, scene: Scene) -> None:
        one = await scene.join("g", "orders")
        await scene.channel.publish(messages("orders", range(KEYS), KEYS))
        held = await scene.take(one, KEYS)
        two = await scene.join("g", "orders", member="m2")
        await scene.channel.publish(messages("orders", range(KEYS, 2 * KEYS), KEYS))
        early: Taken = []
        for _ in range(20):
            for index, member in enumerate((one, two)):
                early += [(index, delivery) for delivery in await member.fetch(100)]
            await scene.clock.sleep(0.02)
        assert {index for index, _ in early} <= {0}, "the first member still has all keys in its hands"
        await one.acknowledge(held)
        if early:
            await one.acknowledge([delivery for _, delivery in early])
        taken = [(0, delivery) for delivery in held] + early
        taken += await scene.take_all([one, two], 2 * KEYS - len(taken))
        assert each_once(taken, 2 * KEYS)

    @scenario
    async def test_the_work_of_a_member_that_leaves_goes_to_the_others(self, scene: Scene) -> None:
        one, two = await scene.join("g", "orders"), await scene.join("g", "orders", member="m2")
        await scene.channel.publish(messages("orders", range(200), KEYS))
        taken = await scene.take_all([one, two], 80)
        await two.close()
        taken += [(0, delivery) for _, delivery in await scene.take_all([one], 200 - len(taken))]
        assert each_once(taken, 200)

    @scenario
    async def test_what_a_dead_member_had_in_its_hands_comes_to_the_others(self, scene: Scene) -> None:
        doomed = await scene.another()
        one, two = await scene.join("g", "orders"), await scene.join("g", "orders", member="m2", channel=doomed)
        count = 0
        lost: list[Delivery] = []
        while not lost:
            await scene.channel.publish(messages("orders", range(count, count + KEYS), KEYS))
            count += KEYS
            lost = await two.fetch(100)
            await scene.clock.sleep(0.03)
            await one.fetch(100)
            await one.release()
        await doomed.close()
        taken = await scene.take_all([one], count)
        assert each_once(taken, count)

    @scenario
    async def test_a_member_that_comes_back_under_its_name_goes_on(self, scene: Scene) -> None:
        await scene.channel.publish(messages("orders", range(20), 5))
        for _ in range(4):
            member = await scene.join("g", "orders")
            await member.acknowledge(await scene.take(member, 5))
            await member.close()
        await scene.nothing(await scene.join("g", "orders"))

    # --- waiting ---

    @scenario
    async def test_waiting_ends_soon_after_a_publish(self, scene: Scene) -> None:
        other = await scene.another()
        for channel in (scene.channel, other):
            member = await scene.join(f"g-{channel is other}", "orders", start="now")
            await member.fetch(1)
            waiting = asyncio.ensure_future(member.wait(scene.suite.patience))
            await scene.clock.sleep(0.1)
            await channel.publish(messages("orders", [1]))
            before = scene.clock.monotonic()
            await waiting
            assert scene.clock.monotonic() - before < scene.suite.patience / 5
            assert bodies(await scene.take(member, 1)) == [1]

    @scenario
    async def test_waiting_ends_at_once_where_something_is_there(self, scene: Scene) -> None:
        member = await scene.join("g", "orders")
        await scene.channel.publish(messages("orders", range(20), 5))
        taken = await scene.take(member, 10)
        if not scene.channel.capabilities.ahead:
            await member.acknowledge(taken)
        before = scene.clock.monotonic()
        await member.wait(scene.suite.patience)
        assert scene.clock.monotonic() - before < scene.suite.patience / 5

    @scenario
    async def test_waiting_ends_when_its_time_is_over(self, scene: Scene) -> None:
        member = await scene.join("g", "orders")
        await scene.nothing(member)
        before = scene.clock.monotonic()
        await member.wait(0.3)
        assert 0.25 <= scene.clock.monotonic() - before < scene.suite.patience / 5

    # --- lag, and a limit ---

    @scenario
    async def test_lag_counts_what_is_not_acknowledged_and_dates_the_oldest(self, scene: Scene) -> None:
        member = await scene.join("g", "orders", "mail")
        await scene.join("other", "mail")
        before = scene.clock.now()
        await scene.channel.publish(messages("orders", range(30), 7) + messages("mail", range(5), 3))
        after = scene.clock.now()

        async def at_first() -> bool:
            return [(await scene.lag("g", topic)).messages for topic in ("orders", "mail")] == [30, 5]

        async def all_groups() -> bool:
            return {(lag.group, lag.topic) for lag in await scene.channel.lag() if lag.messages} == {
                ("g", "orders"),
                ("g", "mail"),
                ("other", "mail"),
            }

        async def at_last() -> bool:
            lags = [await scene.lag("g", topic) for topic in ("orders", "mail")]
            return all(lag.messages == 0 and lag.oldest is None for lag in lags)

        await scene.until(at_first, "all messages are counted")
        await scene.until(all_groups, "every group is listed")
        oldest = (await scene.lag("g", "orders")).oldest
        assert oldest is not None
        assert before - 1_000_000 <= oldest <= after + 1_000_000
        await scene.take_all([member], 35)
        await scene.until(at_last, "nothing is left after the acknowledgement")

    @scenario
    async def test_a_full_channel_takes_more_when_its_slowest_group_has_caught_up(self, scene: Scene) -> None:
        channel = await scene.suite.make_limited(scene.tmp_path / "limited", scene.clock, 50)
        if channel is None:
            return
        scene.handles.append(channel)
        slow, fast = [await scene.join(group, "orders", channel=channel) for group in ("slow", "fast")]
        for start in range(0, 50, 10):
            await channel.publish(messages("orders", range(start, start + 10), 7))
        await scene.take_all([fast], 50)
        assert await refused(channel.publish(messages("orders", [50])), ChannelFull)
        await scene.take_all([slow], 50)

        async def takes_more() -> bool:
            return not await refused(channel.publish(messages("orders", [50])), ChannelFull)

        await scene.until(takes_more, "work goes on after the acknowledgement")
        assert bodies(await scene.take(slow, 1)) == [50]
