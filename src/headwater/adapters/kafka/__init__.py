"""Apache Kafka as channel: topics, consumer groups, CloudEvents in its binary binding."""

from headwater.adapters.kafka.channel import KafkaChannel

__all__ = ["KafkaChannel"]
