"""SNS and SQS as the channel of many machines, by aiobotocore."""

from headwater.adapters.aws.channel import AwsChannel

__all__ = ["AwsChannel"]
