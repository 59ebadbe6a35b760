"""URLs of RabbitMQ channels: what they mean, and what cannot be meant."""

from __future__ import annotations

import pytest

from headwater.adapters.rabbitmq.url import Place
from headwater.errors import ConfigurationError


def where(url: str) -> tuple[str, int, str, str, str, bool]:
    place = Place(url)
    return place.host, place.port, place.user, place.password, place.vhost, place.encrypted


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("rabbitmq://localhost", ("localhost", 5672, "guest", "guest", "/", False)),
        ("rabbitmq://", ("localhost", 5672, "guest", "guest", "/", False)),
        ("amqp://127.0.0.1:99/", ("127.0.0.1", 99, "guest", "guest", "/", False)),
        ("amqp://[::1]/shop", ("::1", 5672, "guest", "guest", "shop", False)),
        ("amqps://shop:p%40ss%2F@mq.example.com/%2Fshop", ("mq.example.com", 5671, "shop", "p@ss/", "/shop", True)),
        ("rabbitmq://shop:pw@mq.example.com/a", ("mq.example.com", 5671, "shop", "pw", "a", True)),
        ("rabbitmq://shop:pw@mq.example.com/?tls=off", ("mq.example.com", 5672, "shop", "pw", "/", False)),
        ("amqp://shop:pw@mq.example.com/?tls=off", ("mq.example.com", 5672, "shop", "pw", "/", False)),
        ("rabbitmq://localhost/?tls=on", ("localhost", 5671, "guest", "guest", "/", True)),
        ("rabbitmq://shop@localhost/", ("localhost", 5672, "shop", "", "/", False)),
    ],
)
def test_a_url_says_where_and_who(url: str, meant: tuple[object, ...]) -> None:
    assert where(url) == meant


def test_options_have_their_types() -> None:
    options = Place("rabbitmq://h/?partitions=8&limit=10&prefetch=50&prefix=a.&timeout=1.5&heartbeat=3").options
    assert (options.partitions, options.limit, options.prefetch) == (8, 10, 50)
    assert (options.prefix, options.timeout, options.heartbeat) == ("a.", 1.5, 3)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("kafka://localhost", "no URL of RabbitMQ"),
        ("rabbitmq:/localhost", "no URL of RabbitMQ"),
        ("rabbitmq://localhost:many/", "none of RabbitMQ"),
        ("rabbitmq://[::1/", "none of RabbitMQ"),
        ("rabbitmq://localhost/\ud800", "none of RabbitMQ"),
        ("rabbitmq://localhost/#x", "no URL of RabbitMQ"),
        ("amqp://shop:s3cret@mq.example.com/", "plain text"),
        ("amqps://shop:s3cret@localhost/?tls=off", "contradict"),
        ("rabbitmq://shop:s3cret@h/?speed=9", "none of the options"),
        ("rabbitmq://shop:s3cret@h/?limit=many", "no number"),
        ("rabbitmq://shop:s3cret@h/?partitions=3", "one of 1, 2, 4"),
        ("rabbitmq://shop:s3cret@h/?prefetch=0", "prefetch"),
        ("rabbitmq://shop:s3cret@h/?limit=-1", "limit"),
        ("rabbitmq://shop:s3cret@h/?timeout=nan", "timeout"),
        ("rabbitmq://shop:s3cret@h/?heartbeat=0", "heartbeat"),
        ("rabbitmq://shop:s3cret@h/?tls=maybe", "on or off"),
        ("rabbitmq://shop:s3cret@h/?auth=magic", "plain or external"),
        ("rabbitmq://shop:s3cret@h/?auth=external", "needs a cert"),
        ("rabbitmq://shop:s3cret@h/?key=k.pem", "name that too"),
        ("amqps://shop:s3cret@h/?ca=/nowhere/ca.pem", "/nowhere/ca.pem"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_without_its_password(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        Place(url)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None or "s3cret" not in str(caught.value.__cause__)
