"""A RabbitMQ server as a channel for the processes of many machines."""

from headwater.adapters.rabbitmq.channel import RabbitmqChannel

__all__ = ["RabbitmqChannel"]
