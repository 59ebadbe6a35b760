"""The channel on RabbitMQ when the server itself fails: killed, restarted, stopped, short of memory; and who may come in."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from headwater.adapters.rabbitmq import RabbitmqChannel
from headwater.channel import Publication
from headwater.errors import ConfigurationError
from tests.fault.rabbitmq import opened
from tests.fault.stream import BOUNDED, CLOCK, Ledger, Publishing, follow, publications, publish_surely, refusal
from tests.servers.certificates import Certificates
from tests.servers.postgres import Unavailable
from tests.servers.rabbitmq import RabbitmqServer, Vhosts, install, own_server

KNOWN = 2.0
"""Seconds until the server itself has on disk that a queue is there: one that is killed before has it without a leader."""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    Certificates().write(folder)
    return folder


@pytest.fixture(scope="module")
def own(certificates: Path) -> Iterator[RabbitmqServer]:
    """A server that these tests may harm; what has harmed it mends it again."""
    try:
        install()
        with own_server(lambda: RabbitmqServer.make(certificates=certificates)) as server:
            yield server
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def vhost(own: RabbitmqServer) -> Iterator[str]:
    """The URL of an empty vhost."""
    vhosts = Vhosts.of(own)
    yield vhosts.make()
    vhosts.delete()


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_server_that_ends_and_starts_again_loses_nothing(own: RabbitmqServer, vhost: str, how: str) -> None:
    async def main() -> None:
        async with opened(vhost) as writing, opened(f"{vhost}?heartbeat=2", made=False) as reading:
            member, ledger = await reading.subscribe("g", ["orders"], "m"), Ledger()
            publishing = Publishing(writing)
            await publishing.reach(300)
            taking = asyncio.create_task(follow(member, ledger))
            await asyncio.sleep(KNOWN)
            await publishing.reach(300)
            await asyncio.to_thread(getattr(own, how))
            assert "check host" in await refusal(RabbitmqChannel(vhost, CLOCK).open())
            await asyncio.to_thread(own.restart)
            await publishing.reach(300)
            count = await publishing.stop()
            taking.cancel()
            with suppress(asyncio.CancelledError):
                await taking
            await ledger.drain(member, count)
            assert publishing.failures > 0

    asyncio.run(main())


def test_a_server_that_stands_still_is_told_in_bounded_time(own: RabbitmqServer, vhost: str) -> None:
    async def main() -> None:
        async with opened(f"{vhost}?timeout=1&heartbeat=1") as channel:
            member, ledger = await channel.subscribe("g", ["orders"], "m"), Ledger()
            await channel.publish(publications(range(50)))
            with own.paused():
                began = time.monotonic()
                assert "look at the server" in await refusal(channel.publish(publications(range(50, 100))))
                assert "does not answer" in await refusal(RabbitmqChannel(channel.url, CLOCK).open())
                assert "does not answer" in await refusal(channel.publish(publications(range(50, 100))))
                assert time.monotonic() - began < BOUNDED
            await publish_surely(channel, publications(range(50, 100)))
            await ledger.drain(member, 100)

    asyncio.run(main())


@asynccontextmanager
async def short_of_memory(server: RabbitmqServer):  # type: ignore[no-untyped-def]
    """The server finds that it uses more memory than it may."""
    watermark = "vm_memory_monitor:set_vm_memory_high_watermark"
    await asyncio.to_thread(server.run, f"{watermark}(0.00001)")
    try:
        yield
    finally:
        await asyncio.to_thread(server.run, f"{watermark}(0.4)")


def test_a_server_short_of_memory_takes_nothing_and_loses_nothing(own: RabbitmqServer, vhost: str) -> None:
    async def main() -> None:
        async with opened(vhost) as channel:
            member, ledger = await channel.subscribe("g", ["orders"], "m"), Ledger()
            await channel.publish(publications(range(300)))
            async with short_of_memory(own):
                await ledger.drain(member, 300)  # first: the server may still have read some of what it refuses
                began = time.monotonic()
                assert "low on memory" in await refusal(channel.publish(publications(range(300, 600))))
                assert "low on memory" in await refusal(channel.publish(publications(range(300, 600))))
                assert time.monotonic() - began < BOUNDED
            await publish_surely(channel, publications(range(300, 600)))
            await ledger.drain(member, 600)

    asyncio.run(main())


def test_a_body_that_the_server_finds_too_large_is_refused_from_then_on(own: RabbitmqServer, vhost: str) -> None:
    """Its own limit may be lower than ours."""

    async def main() -> None:
        async with opened(vhost) as channel:
            small, large = publications(range(2), size=100)
            large = Publication("orders", "k", {}, bytes(10_000))
            await refusal(channel.publish([small, large]))
            answer = await channel.publish([small, large])
            assert list(answer) == [1]
            assert "5000 is the most" in answer[1]

    before = own.run("element(2, application:get_env(rabbit, max_message_size))")
    own.run("application:set_env(rabbit, max_message_size, 5000)")
    try:
        asyncio.run(main())
    finally:
        own.run(f"application:set_env(rabbit, max_message_size, {before})")


# --- who may come in ---


def test_who_is_not_known_is_told_at_once_and_no_secret_is_said(
    own: RabbitmqServer, vhost: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = {
        own.url("nowhere"): "check the vhost",
        vhost.replace("guest:guest", "guest:s3cret"): "check the user or password",
        vhost.replace("guest:guest", "nobody:s3cret"): "check the user or password",
    }

    async def main() -> None:
        for url, advice in wrong.items():
            began = time.monotonic()
            with pytest.raises(ConfigurationError, match=advice) as caught:
                await RabbitmqChannel(url, CLOCK).open()
            assert "s3cret" not in f"{caught.value}{caplog.text}"
            assert time.monotonic() - began < BOUNDED

    asyncio.run(main())


def test_a_password_that_is_changed_meanwhile_is_told_by_publishing(own: RabbitmqServer, vhost: str) -> None:
    name = vhost.rpartition("/")[2]
    every = '<<".*">>, <<".*">>, <<".*">>'
    own.run('rabbit_auth_backend_internal:add_user(<<"shop">>, <<"old">>, <<"test">>)')
    own.run(f'rabbit_auth_backend_internal:set_permissions(<<"shop">>, <<"{name}">>, {every}, <<"test">>)')

    async def main() -> None:
        async with opened(vhost.replace("guest:guest", "shop:old")) as channel:
            await channel.publish(publications(range(10)))
            own.run('rabbit_auth_backend_internal:change_password(<<"shop">>, <<"new">>, <<"test">>)')
            own.run('rabbit_networking:close_all_user_connections(<<"shop">>, <<"test">>)')
            await asyncio.sleep(0.3)
            assert "ACCESS_REFUSED" in await refusal(channel.publish(publications(range(10))))

    asyncio.run(main())


def test_a_user_without_rights_is_told_which_he_lacks(own: RabbitmqServer, vhost: str) -> None:
    name = vhost.rpartition("/")[2]
    own.run('rabbit_auth_backend_internal:add_user(<<"reader">>, <<"pw">>, <<"test">>)')
    own.run(
        f'rabbit_auth_backend_internal:set_permissions(<<"reader">>, <<"{name}">>, <<"">>, <<"">>, <<".*">>, <<"test">>)'
    )

    async def main() -> None:
        async with opened(vhost), opened(vhost.replace("guest:guest", "reader:pw"), made=False) as reader:
            said = await refusal(reader.publish(publications(range(3))))
            assert "exchange 'orders'" in said
            assert "right on the vhost" in said
            assert await reader.publish([]) == {}

    asyncio.run(main())


def test_tls_is_checked_and_a_certificate_may_say_who_one_is(
    own: RabbitmqServer, vhost: str, certificates: Path
) -> None:
    name = vhost.rpartition("/")[2]
    secure = own.url(name, tls=True)
    ca = f"{secure}?ca={certificates / 'ca.pem'}"
    client = f"&cert={certificates / 'client.pem'}&key={certificates / 'client.key'}"

    async def main() -> None:
        for url in (ca, ca + client, ca + client + "&auth=external", ca.replace("amqps:", "rabbitmq:") + "&tls=on"):
            async with opened(url) as channel:
                await channel.publish(publications(range(10)))
        async with opened(ca) as channel:
            ledger = Ledger()
            await ledger.drain(await channel.subscribe("g", ["orders"], "m"), 10)
        assert "certificate verify failed" in await refusal(RabbitmqChannel(secure, CLOCK).open())
        assert "check host, port and tls" in await refusal(
            RabbitmqChannel(vhost.replace(f":{own.ports['amqp']}", f":{own.ports['amqps']}"), CLOCK).open()
        )
        assert "cannot be reached" in await refusal(
            RabbitmqChannel(f"{vhost}?tls=on&ca={certificates / 'ca.pem'}", CLOCK).open()
        )
        with pytest.raises(ConfigurationError, match="check the user"):
            await RabbitmqChannel(ca.replace("guest:guest", "guest:wrong"), CLOCK).open()

    asyncio.run(main())


def test_certificates_that_cannot_be_read_are_named() -> None:
    with pytest.raises(ConfigurationError, match="nowhere"):
        RabbitmqChannel("amqps://localhost/?ca=/nowhere.pem", CLOCK)
