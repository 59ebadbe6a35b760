"""Errors of librdkafka in our words: what happened, and what to do."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message

from headwater.errors import ChannelError, ConfigurationError, HeadwaterError

APPLY: Final = "make it: headwater channel apply"
UNREACHABLE: Final = "start it, or check host, port and tls= in its URL; work goes on by itself"
ADVICE: Final[dict[int, str]] = {
    KafkaError._AUTHENTICATION: "it does not take the credentials: check user, password and sasl= in its URL",
    KafkaError.SASL_AUTHENTICATION_FAILED: "it does not take the credentials: check user, password and sasl= in its URL",
    KafkaError.UNSUPPORTED_SASL_MECHANISM: "it does not know the mechanism: check sasl= in its URL",
    KafkaError._SSL: "TLS fails: check ca=, cert= and key= in its URL, and that the port speaks TLS",
    KafkaError._RESOLVE: "no such host: check the names in its URL",
    KafkaError._ALL_BROKERS_DOWN: f"no broker answers: {UNREACHABLE}",
    KafkaError._TRANSPORT: f"no broker answers: {UNREACHABLE}",
    KafkaError._TIMED_OUT: f"no broker answers in time: {UNREACHABLE}",
    KafkaError._UNKNOWN_TOPIC: f"a topic is missing; {APPLY}",
    KafkaError.UNKNOWN_TOPIC_OR_PART: f"a topic is missing; {APPLY}",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "an access list forbids it: allow this user the topics",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "an access list forbids it: allow this user the group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "an access list forbids it: allow this user IdempotentWrite, or more",
    KafkaError.FENCED_INSTANCE_ID: "another process has joined under the same name: give each member a name of its own",
    KafkaError.NOT_ENOUGH_REPLICAS: "too few brokers have copies of the topic: start those that are down",
}
HOPELESS: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
    }
)
"""What does not go away by itself when a channel is opened."""
SERIOUS: Final = HOPELESS | {KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE}
"""What a client says by itself, and is worth telling who waits for it."""
PASSING: Final = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_CONTROLLER,
    }
)
"""What is so for a moment after something was made or has moved."""
UNTRUSTING: Final = ("SSL handshake failed", "SSL alert")
"""What is said where TLS fails, and not where a connection by TLS ends."""
TOO_LARGE: Final = KafkaError.MSG_SIZE_TOO_LARGE
REFUSED: Final = {
    TOO_LARGE: "it is larger than the topic takes (max.message.bytes)",
    KafkaError.INVALID_RECORD: "the broker does not take it: INVALID_RECORD",
}
"""What befalls a message for itself."""


def error_of(error: KafkaError | KafkaException) -> KafkaError:
    """The error within an exception."""
    found: KafkaError = error.args[0] if isinstance(error, KafkaException) else error
    return found


def error_in(message: Message) -> KafkaError:
    """The error that a message is."""
    found = message.error()
    assert found is not None
    return found


def cause_of(error: KafkaError) -> int:
    """The code of what is behind an error, as far as its words alone say it."""
    if error.code() == KafkaError._FATAL and "group.instance.id" in error.str():
        return KafkaError.FENCED_INSTANCE_ID
    if error.code() == KafkaError._TRANSPORT and any(sign in error.str() for sign in UNTRUSTING):
        return KafkaError._SSL
    return error.code()


def told(error: KafkaError, place: str) -> str:
    """An error in words."""
    code = cause_of(error)
    return f"{place}: {ADVICE[code]} ({error.str()})" if code in ADVICE else f"{place}: {error.str()} ({error.name()})"


def translate(error: KafkaError | KafkaException, place: str) -> HeadwaterError:
    """Our error for one of librdkafka's."""
    found = error_of(error)
    kind = ConfigurationError if found.code() in HOPELESS else ChannelError
    return kind(told(found, place))
