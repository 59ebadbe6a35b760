"""What a client of Kafka says of itself: the cause is kept and told, not that no broker answers."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from headwater.adapters.kafka.faults import cause_of, told, translate
from headwater.adapters.kafka.journal import Journal
from headwater.errors import ChannelError, ConfigurationError

DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")
REFUSED = KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error: invalid credentials")
ALERT = KafkaError(
    KafkaError._TRANSPORT, "Receive failed: SSL routines::ssl/tls alert bad certificate: SSL alert number 42"
)
HANDSHAKE = KafkaError(KafkaError._TRANSPORT, "SSL handshake failed: Disconnected: SSL connection closed by peer")
ENDED = KafkaError(KafkaError._TRANSPORT, "Disconnected: SSL connection closed by peer (after 900ms in state UP)")


def kept(*errors: KafkaError) -> KafkaError | None:
    journal = Journal()
    for error in errors:
        journal.error(error)
    return journal.trouble


@pytest.mark.parametrize("cause", [REFUSED, ALERT, HANDSHAKE])
def test_why_no_broker_answers_is_kept(cause: KafkaError) -> None:
    assert kept(cause, DOWN) is cause
    assert kept(DOWN, cause) is cause


def test_that_no_broker_answers_is_kept_where_nothing_says_why() -> None:
    assert kept(ENDED, DOWN) is DOWN
    assert kept(ENDED) is None, "one broker of several may have ended"


@pytest.mark.parametrize(
    ("error", "advice"), [(ALERT, "TLS fails"), (HANDSHAKE, "TLS fails"), (ENDED, "no broker answers")]
)
def test_a_connection_by_tls_that_ends_is_no_trouble_with_tls(error: KafkaError, advice: str) -> None:
    assert advice in told(error, "kafka://here")
    assert isinstance(translate(error, "kafka://here"), ChannelError), "it may pass"


def test_credentials_that_are_wrong_stay_so() -> None:
    assert isinstance(translate(REFUSED, "kafka://here"), ConfigurationError)


def test_a_member_that_is_fenced_is_known_by_its_words_alone() -> None:
    fatal = KafkaError(KafkaError._FATAL, "Static consumer fenced by other consumer with same group.instance.id")
    assert cause_of(fatal) == KafkaError.FENCED_INSTANCE_ID
    assert "another process has joined under the same name" in told(fatal, "kafka://here")
