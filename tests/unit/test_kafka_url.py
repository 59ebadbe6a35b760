"""What the URL of a Kafka channel says: where, how it is used, and who may listen. None of it shows a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headwater.adapters.kafka.url import Place
from headwater.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PASSWORD", "PASSWORD_FILE", "KEY_PASSWORD", "KEY_PASSWORD_FILE"):
        monkeypatch.delenv(f"HEADWATER_KAFKA_{name}", raising=False)


def protocol(url: str) -> Any:
    return Place(url).properties["security.protocol"]


@pytest.mark.parametrize(
    ("hosts", "servers"),
    [
        ("broker", "broker:9092"),
        ("a:1,b:2,c", "a:1,b:2,c:9092"),
        ("[::1]:9093,[fe80::1]", "[::1]:9093,[fe80::1]:9092"),
        ("127.0.0.1:9092/", "127.0.0.1:9092"),
    ],
)
def test_hosts_have_ports(hosts: str, servers: str) -> None:
    place = Place(f"kafka://{hosts}")
    assert place.properties["bootstrap.servers"] == servers
    assert place.name == f"kafka://{servers}"


@pytest.mark.parametrize(
    "hosts", ["", ":9092", "a:0", "a:65536", "a:x", "a,,b", "a/b", "a:9092/topic", "amqp://a", "[]:1"]
)
def test_what_is_no_host_is_refused_with_an_example(hosts: str) -> None:
    with pytest.raises(ConfigurationError, match="write kafka://host:9092"):
        Place(f"kafka://{hosts}")


# --- who may listen ---


@pytest.mark.parametrize("hosts", ["127.0.0.1", "localhost:9092", "[::1]", "127.0.0.1,localhost:9093"])
def test_plain_text_stays_on_this_machine(hosts: str) -> None:
    assert protocol(f"kafka://{hosts}") == "PLAINTEXT"


@pytest.mark.parametrize("hosts", ["broker.example", "10.0.0.1:9092", "127.0.0.1,10.0.0.1", "localhost.example"])
def test_off_this_machine_plain_text_must_be_asked_for(hosts: str) -> None:
    assert protocol(f"kafka://{hosts}") == "SSL"
    assert protocol(f"kafka://ada:pw@{hosts}") == "SASL_SSL"
    assert protocol(f"kafka://{hosts}?tls=off") == "PLAINTEXT"
    assert protocol(f"kafka://ada:pw@{hosts}?tls=off") == "SASL_PLAINTEXT"


def test_a_file_of_tls_asks_for_tls_here_too(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    assert protocol(f"kafka://127.0.0.1?ca={tmp_path / 'ca.pem'}") == "SSL"
    assert protocol("kafka://127.0.0.1?tls=on") == "SSL"


# --- who we are ---


@pytest.mark.parametrize(
    ("sasl", "mechanism"),
    [("", "SCRAM-SHA-512"), ("?sasl=scram-sha-256", "SCRAM-SHA-256"), ("?sasl=plain", "PLAIN")],
)
def test_a_user_has_a_mechanism_and_a_password_as_it_was_written(sasl: str, mechanism: str) -> None:
    found = Place(f"kafka://ad%40a:p%3Aw%20%2F@127.0.0.1{sasl}").properties
    assert [found[f"sasl.{name}"] for name in ("mechanism", "username", "password")] == [mechanism, "ad@a", "p:w /"]


def test_a_password_comes_from_the_environment_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADWATER_KAFKA_PASSWORD", "from here")
    assert Place("kafka://ada@127.0.0.1").properties["sasl.password"] == "from here"
    (tmp_path / "secret").write_text("from there\n")
    monkeypatch.setenv("HEADWATER_KAFKA_PASSWORD_FILE", str(tmp_path / "secret"))
    assert Place("kafka://ada@127.0.0.1").properties["sasl.password"] == "from there"


def test_a_key_may_have_a_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADWATER_KAFKA_KEY_PASSWORD", "opens it")
    for name in ("cert", "key"):
        (tmp_path / name).touch()
    found = Place(f"kafka://127.0.0.1?cert={tmp_path / 'cert'}&key={tmp_path / 'key'}").properties
    assert found["ssl.key.password"] == "opens it"


# --- what cannot be ---


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        ("127.0.0.1?nosuch=1", "known: prefix, partitions"),
        ("127.0.0.1?partitions=0", "partitions"),
        ("127.0.0.1?prefix=a b", "prefix"),
        ("127.0.0.1?drain=241", "drain"),
        ("127.0.0.1?tls=maybe", "tls"),
        ("ada:pw@127.0.0.1?sasl=md5", "sasl"),
        ("ada@127.0.0.1", "set HEADWATER_KAFKA_PASSWORD, or HEADWATER_KAFKA_PASSWORD_FILE"),
        ("127.0.0.1?sasl=plain", "needs a user: write kafka://user@host:9092"),
        ("127.0.0.1?ca=/nowhere.pem", "ca=/nowhere.pem names no file"),
        ("127.0.0.1?tls=off&ca=/nowhere.pem", "leave one of them out"),
        (f"127.0.0.1?cert={__file__}", "belong together"),
    ],
)
def test_what_cannot_be_is_told_with_what_can(rest: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Place(f"kafka://{rest}")


def test_a_secret_is_in_no_message() -> None:
    for rest in (
        "ada:s3cret@?x",
        "ada:s3cret@a:x",
        "ada:s3cret@127.0.0.1?nosuch=1",
        "ada:s3cret@a?tls=off&ca=/n",
        "ada:s3cret?@a",
    ):
        with pytest.raises(ConfigurationError) as caught:
            Place(f"kafka://{rest}")
        assert "s3cret" not in str(caught.value)
    assert "s3cret" not in Place("kafka://ada:s3cret@127.0.0.1").name
