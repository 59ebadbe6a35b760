"""What is settled is settled, and what is not comes again; what is delayed or addressed waits for its time or its group."""

from __future__ import annotations

from headwater.testing.contracts.channel.scene import ChannelCase, Scene, bodies, in_order, messages, refused, scenario


class Settling(ChannelCase):
    """Acknowledging, positions of producers, delay, and messages for one group."""

    @scenario
    async def test_what_is_released_is_fetched_again(self, scene: Scene) -> None:
        await scene.channel.publish(messages("orders", range(20), keys=5))
        member = await scene.join("g", "orders")
        first = await scene.take(member, 8)
        await member.acknowledge(first)
        await scene.take(member, 7)
        await member.release()
        rest = await scene.drain(member, 12)
        assert in_order(first + rest)
        assert sorted(bodies(first + rest)) == list(range(20))

    @scenario
    async def test_what_is_not_acknowledged_comes_again_after_a_close(self, scene: Scene) -> None:
        await scene.channel.publish(messages("orders", range(10), keys=3))
        member = await scene.join("g", "orders")
        await member.acknowledge(first := await scene.take(member, 4))
        await scene.take(member, 6)
        await member.close()
        again = await scene.join("g", "orders")
        assert sorted(bodies(first + await scene.drain(again, 6))) == list(range(10))

    @scenario
    async def test_what_is_not_acknowledged_comes_again_after_a_reopening(self, scene: Scene) -> None:
        await scene.channel.publish(messages("orders", range(10), keys=3))
        member = await scene.join("g", "orders")
        await member.acknowledge(first := await scene.take(member, 4))
        await scene.take(member, 3)
        await scene.channel.close()
        again = await scene.join("g", "orders", channel=await scene.another())
        rest = await scene.drain(again, 6)
        assert in_order(first + rest)
        assert sorted(bodies(first + rest)) == list(range(10))

    @scenario
    async def test_what_is_acknowledged_never_comes_again(self, scene: Scene) -> None:
        member = await scene.join("g", "orders")
        await scene.channel.publish(messages("orders", range(50), keys=7))
        await scene.take_all([member], 50, limit=9)
        await member.close()
        again = await scene.join("g", "orders")
        await scene.nothing(again)
        await scene.channel.close()
        channel = await scene.another()
        await channel.publish(messages("orders", [50]))
        assert bodies(await scene.take(await scene.join("g", "orders", channel=channel), 1)) == [50]

    @scenario
    async def test_a_batch_may_be_fetched_before_the_one_before_it_is_settled(self, scene: Scene) -> None:
        keys = 4 if scene.channel.capabilities.ahead else 30
        await scene.channel.publish(messages("orders", range(30), keys))
        member = await scene.join("g", "orders")
        one, two, three = [await scene.take(member, 10) for _ in range(3)]
        assert in_order(one + two + three)
        assert sorted(bodies(one + two + three)) == list(range(30))
        await member.acknowledge(one)
        await member.acknowledge(two)
        await member.close()
        again = await scene.take(await scene.join("g", "orders"), 10)
        assert sorted(bodies(again)) == sorted(bodies(three))

    @scenario
    async def test_fetch_gives_no_more_than_asked_for(self, scene: Scene) -> None:
        await scene.channel.publish(messages("orders", range(40), keys=9))
        member = await scene.join("g", "orders")
        seen = 0
        while seen < 40:
            batch = await member.fetch(7)
            assert len(batch) <= 7
            await member.acknowledge(batch)
            seen += len(batch)
            if not batch:
                await member.wait(0.1)
        assert seen == 40

    @scenario
    async def test_the_position_of_a_producer_is_kept_with_what_it_publishes(self, scene: Scene) -> None:
        channel = scene.channel
        if not channel.capabilities.producer_position:
            assert await channel.producer_position("shop") is None
            return
        assert not await channel.producer_position("shop")
        await channel.publish(messages("orders", [1]), producer="shop", position=7, epoch=1)
        await channel.publish([], producer="bank", position=3, epoch=1)
        assert [await channel.producer_position(name) for name in ("shop", "bank")] == [7, 3]
        await channel.publish(messages("orders", [2]), producer="shop", position=9, epoch=2)
        await channel.publish([], producer="shop", position=0, epoch=3)
        await channel.close()
        channel = await scene.another()
        assert await channel.producer_position("shop") == 9

    @scenario
    async def test_a_producer_of_an_older_epoch_is_refused(self, scene: Scene) -> None:
        channel = scene.channel
        if not channel.capabilities.producer_position:
            return
        await channel.publish(messages("orders", [1]), producer="shop", position=7, epoch=2)
        assert await refused(channel.publish(messages("orders", [2]), producer="shop", position=8, epoch=1))
        assert await channel.producer_position("shop") == 7
        member = await scene.join("g", "orders")
        assert bodies(await scene.take(member, 1)) == [1]
        await scene.nothing(member)

    @scenario
    async def test_a_delayed_message_comes_when_it_is_due_and_not_before(self, scene: Scene) -> None:
        if not scene.channel.capabilities.delay:
            return
        member = await scene.join("g", "orders")
        before = scene.clock.monotonic()
        await scene.channel.publish(messages("orders", [1], delay=0.6) + messages("orders", [2]))
        assert bodies(await scene.take(member, 1)) == [2]
        assert bodies(await scene.take(member, 1)) == [1]
        assert 0.599 <= scene.clock.monotonic() - before < self.patience

    @scenario
    async def test_a_delayed_message_outlives_its_channel(self, scene: Scene) -> None:
        if not scene.channel.capabilities.delay:
            return
        await scene.channel.publish(messages("orders", [1], delay=0.3))
        await scene.channel.close()
        member = await scene.join("g", "orders", channel=await scene.another())
        assert bodies(await scene.take(member, 1)) == [1]

    @scenario
    async def test_a_message_for_a_group_comes_to_that_group_alone(self, scene: Scene) -> None:
        one, two = await scene.join("one", "orders"), await scene.join("two", "orders")
        repair = messages("orders", range(10, 20), group="two")
        await scene.channel.publish([*messages("orders", [1]), *repair, *messages("orders", [30])])
        assert bodies(await scene.drain(two, 12)) == [1, *range(10, 20), 30]
        taken = [delivery for _, delivery in await scene.take_all([one], 2, limit=1)]
        assert bodies(taken) == [1, 30], "the others skip it without stalling"
        await scene.nothing(one)

        async def caught_up() -> bool:
            return (await scene.lag("one", "orders")).messages == 0

        await scene.until(caught_up, "what is for another group is no lag")
