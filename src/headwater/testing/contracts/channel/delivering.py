"""What goes into a channel comes out of it: whole, in order, to every group of its topic and to no other."""

from __future__ import annotations

import asyncio

from headwater.channel import Publication, Route
from headwater.testing.contracts.channel.scene import ChannelCase, Scene, bodies, in_order, messages, scenario


class Delivering(ChannelCase):
    """Messages, groups and topics."""

    @scenario
    async def test_a_message_is_published_fetched_and_acknowledged(self, scene: Scene) -> None:
        member = await scene.join("g", "orders")
        assert await scene.channel.publish(messages("orders", [1])) == {}
        (delivery,) = await scene.take(member, 1)
        assert (delivery.topic, delivery.key, delivery.headers) == ("orders", "k0", {"id": "orders-1"})
        assert delivery.body == b"1"
        await member.acknowledge([delivery])
        await scene.nothing(member)

    @scenario
    async def test_headers_key_and_body_come_out_as_they_went_in(self, scene: Scene) -> None:
        large = bytes(range(256)) * (min(1 << 20, scene.channel.capabilities.max_bytes * 3 // 4) // 256)
        every = [
            Publication("orders", "naïve/ключ/鍵/🗝", {"name": "Zoë 🦉 \t\"'\\ ", "empty": ""}, "päyload ☃".encode()),
            Publication("orders", "k", {"id": "2"}, b""),
            Publication("orders", "k", {"id": "3"}, b'\x00\xff{"not": json\r\n'),
            Publication("orders", "k", {"id": "4"}, large),
        ]
        assert await scene.channel.publish(every) == {}
        found = await scene.drain(await scene.join("g", "orders"), len(every))
        assert {(d.key, d.body) for d in found} == {(p.key, p.body) for p in every}
        assert all(d.headers in [p.headers for p in every if p.body == d.body] for d in found)

    @scenario
    async def test_publishing_nothing_is_fine(self, scene: Scene) -> None:
        assert await scene.channel.publish([]) == {}

    @scenario
    async def test_a_message_that_cannot_go_is_refused_alone(self, scene: Scene) -> None:
        one, two, three = messages("orders", [1, 2, 3])
        large = Publication("orders", "k", {"id": "x"}, bytes(scene.channel.capabilities.max_bytes + 1))
        no_text = Publication("orders", "k\ud800", {"id": "y"}, b"")
        answer = await scene.channel.publish([one, large, two, no_text, three])
        assert sorted(answer) == [1, 3]
        assert all(answer.values()), "each refusal gives its reason"
        member = await scene.join("g", "orders")
        assert bodies(await scene.take(member, 3)) == [1, 2, 3]
        await scene.nothing(member)

    @scenario
    async def test_the_order_of_each_key_is_kept(self, scene: Scene) -> None:
        member = await scene.join("g", "orders")
        for start in range(0, 600, 75):
            await scene.channel.publish(messages("orders", range(start, start + 75), keys=23))
        taken = [delivery for _, delivery in await scene.take_all([member], 600, limit=47)]
        assert in_order(taken)
        assert sorted(bodies(taken)) == list(range(600))

    @scenario
    async def test_those_who_publish_at_once_are_all_taken(self, scene: Scene) -> None:
        member = await scene.join("g", "orders")
        batches = [messages("orders", range(n * 10, n * 10 + 10), keys=7) for n in range(30)]
        assert await asyncio.gather(*map(scene.channel.publish, batches)) == [{}] * 30
        assert sorted(bodies(await scene.drain(member, 300))) == list(range(300))

    @scenario
    async def test_every_group_gets_all_of_its_topics_and_nothing_else(self, scene: Scene) -> None:
        both = await scene.join("both", "orders", "payments")
        one = await scene.join("one", "payments")
        await scene.channel.publish(messages("orders", range(10), 3) + messages("payments", range(10, 20), 3))
        await scene.channel.publish(messages("mail", range(20, 30), 3))
        assert sorted(bodies(await scene.drain(both, 20))) == list(range(20))
        taken = await scene.drain(one, 10)
        assert sorted(bodies(taken)) == list(range(10, 20))
        assert {delivery.topic for delivery in taken} == {"payments"}
        await scene.nothing(one)
        await scene.nothing(both)

    @scenario
    async def test_a_new_group_starts_at_the_beginning_or_now(self, scene: Scene) -> None:
        if not scene.channel.capabilities.history:
            return
        await scene.channel.publish(messages("orders", range(5), 3))
        beginning = await scene.join("a", "orders")
        now = await scene.join("b", "orders", start="now")
        await scene.nothing(now)
        await scene.channel.publish(messages("orders", range(5, 10), 3))
        assert sorted(bodies(await scene.take(beginning, 10))) == list(range(10))
        assert sorted(bodies(await scene.take(now, 5))) == list(range(5, 10))
        await now.close()
        again = await scene.join("b", "orders", start="beginning")
        assert sorted(bodies(await scene.take(again, 5))) == list(range(5, 10)), "the group is not new"

    @scenario
    async def test_a_new_group_gets_what_is_published_once_its_route_stands(self, scene: Scene) -> None:
        await scene.channel.establish([Route("orders", ("a", "b"))])
        await scene.channel.publish(messages("orders", range(5), 3))
        assert sorted(bodies(await scene.drain(await scene.join("a", "orders"), 5))) == list(range(5))
        assert sorted(bodies(await scene.drain(await scene.join("b", "orders"), 5))) == list(range(5))

    @scenario
    async def test_what_was_established_is_kept_when_it_is_again(self, scene: Scene) -> None:
        await scene.channel.publish(messages("orders", range(5), 3))
        assert await scene.channel.establish([Route("orders", ("g",))]) == []
        assert await scene.channel.examine([Route("orders", ("g",))]) == []
        assert sorted(bodies(await scene.drain(await scene.join("g", "orders"), 5))) == list(range(5))

    @scenario
    async def test_a_topic_that_is_new_to_a_group_is_not_skipped(self, scene: Scene) -> None:
        await scene.channel.establish([Route("mail", ("g",))])
        await scene.channel.publish(messages("orders", range(3), 3) + messages("mail", range(10, 13), 3))
        first = await scene.join("g", "orders")
        await scene.take_all([first], 3)
        await first.close()
        await scene.channel.publish(messages("orders", range(3, 6), 3) + messages("mail", range(13, 16), 3))
        more = await scene.join("g", "orders", "mail")
        taken = [delivery for _, delivery in await scene.take_all([more], 9)]
        assert in_order(d for d in taken if d.topic == "mail")
        assert sorted(bodies(taken)) == [3, 4, 5, 10, 11, 12, 13, 14, 15]
        await more.close()
        await scene.nothing(await scene.join("g", "orders", "mail", "late", start="now"))

    @scenario
    async def test_a_topic_that_was_left_waits_where_it_was_left(self, scene: Scene) -> None:
        await scene.channel.establish([Route("mail", ("g",))])
        await scene.channel.publish(messages("orders", range(3)) + messages("mail", range(10, 13)))
        both = await scene.join("g", "orders", "mail")
        await scene.take_all([both], 6)
        await both.close()
        one = await scene.join("g", "orders")
        await scene.channel.publish(messages("orders", range(3, 6)) + messages("mail", range(13, 16)))
        await scene.take_all([one], 3)
        await one.close()
        assert bodies(await scene.drain(await scene.join("g", "orders", "mail"), 3)) == [13, 14, 15]
