"""Who may come in to Kafka, and who may listen: TLS and SASL on a real broker, and what is said where they fail."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from headwater.adapters.kafka import KafkaChannel
from headwater.errors import ConfigurationError, HeadwaterError
from tests.fault.kafka import opened
from tests.fault.stream import BOUNDED, CLOCK, Ledger, publications
from tests.servers.kafka import PASSWORD, Brokers, KafkaServer

SCRAM = [("ada", "scram-sha-512"), ("ada", "scram-sha-256"), ("grace", "plain")]
CREDENTIALS = "it does not take the credentials: check user, password and sasl= in its URL"
TLS = "TLS fails: check ca=, cert= and key= in its URL, and that the port speaks TLS"


class Doors:
    """The listeners of a broker, as URLs of channels with a prefix that nobody else has."""

    def __init__(self, brokers: Brokers, server: KafkaServer) -> None:
        self._brokers = brokers
        self._ports = server.ports
        self.folder = server.folder

    def plain(self, **options: object) -> str:
        """In plain text."""
        return self._brokers.url(**options)

    def sasl(self, user: str, password: str = PASSWORD, **options: object) -> str:
        """By TLS and a password."""
        who = f"{user}:{quote(password, safe='')}" if password else user
        return self._at(f"{who}@127.0.0.1:{self._ports.sasl}", ca=self.folder / "ca.pem", **options)

    def mutual(self, **options: object) -> str:
        """By TLS and a certificate."""
        return self._at(f"127.0.0.1:{self._ports.tls}", **{"ca": self.folder / "ca.pem", **options})

    def untrusted(self) -> str:
        """By TLS, with no word of who signed the broker's certificate."""
        return self._at(f"127.0.0.1:{self._ports.tls}", tls="on")

    def _at(self, place: str, **options: object) -> str:
        return self.plain(**options).replace(self._brokers.address, place)


@pytest.fixture
def doors(kafka: Brokers) -> Doors:
    if kafka.server is None:
        pytest.skip("the users of a broker that is given are not known")
    return Doors(kafka, kafka.server)


def carries(url: str) -> None:
    """A channel there does its work."""

    async def main() -> None:
        async with opened(url) as channel:
            await channel.publish(publications(range(50)))
            await Ledger().drain(await channel.subscribe("g", ["orders"], "m"), 50)
            assert await channel.lag("g")

    asyncio.run(main())


def refusal(url: str) -> HeadwaterError:
    """What is said to who is not let in, soon."""
    began = time.monotonic()
    with pytest.raises(HeadwaterError) as caught:
        asyncio.run(KafkaChannel(f"{url}&timeout=2", CLOCK).open())
    assert time.monotonic() - began < BOUNDED
    return caught.value


# --- who is let in ---


@pytest.mark.parametrize(("user", "mechanism"), SCRAM)
def test_a_user_comes_in_by_tls_and_a_password(doors: Doors, user: str, mechanism: str) -> None:
    carries(doors.sasl(user, sasl=mechanism))


def test_scram_with_512_bits_is_what_a_user_has_unless_it_is_said(doors: Doors) -> None:
    carries(doors.sasl("ada"))


def test_a_password_may_come_from_a_file(doors: Doors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    monkeypatch.setenv("HEADWATER_KAFKA_PASSWORD_FILE", str(tmp_path / "password"))
    carries(doors.sasl("ada", ""))


def test_a_certificate_says_who_a_client_is(doors: Doors) -> None:
    carries(doors.mutual(cert=doors.folder / "client.pem", key=doors.folder / "client.key"))


# --- who is not ---


@pytest.mark.parametrize(
    ("user", "options"),
    [("ada", {}), ("nobody", {}), ("grace", {"sasl": "plain"})],
    ids=["wrong password", "no such user", "plain"],
)
def test_wrong_credentials_are_told_and_no_secret_is_said(
    doors: Doors, user: str, options: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    error = refusal(doors.sasl(user, "s3cret/+ pass", **options))
    assert isinstance(error, ConfigurationError), "no other try helps"
    assert CREDENTIALS in str(error)
    told = f"{error!r} {[vars(record) for record in caplog.records]}"
    assert "s3cret" not in told


def test_a_client_without_a_certificate_is_told(doors: Doors) -> None:
    assert TLS in str(refusal(doors.mutual()))


def test_a_broker_whose_certificate_nobody_vouches_for_is_told(doors: Doors) -> None:
    error = refusal(doors.untrusted())
    assert TLS in str(error)
    assert "verify" in str(error)


def test_tls_where_the_port_speaks_plain_text_is_told_and_the_other_way_round(doors: Doors) -> None:
    assert TLS in str(refusal(doors.plain(tls="on")))
    assert "check host, port and tls= in its URL" in str(refusal(doors.mutual(ca="", tls="off")))


def test_who_reads_is_told_too(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member is a client of its own: the password may have been changed since the channel was opened."""

    async def main() -> None:
        async with opened(doors.sasl("ada", timeout=5)) as channel:
            monkeypatch.setitem(channel.place.properties, "sasl.password", "changed")
            with pytest.raises(HeadwaterError, match="check user, password"):
                await channel.subscribe("g", ["orders"], "m")

    asyncio.run(main())
