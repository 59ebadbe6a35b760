"""SNS and SQS as the channel of many machines, and S3 as their place for claims, by aiobotocore."""

from headwater.adapters.aws.channel import AwsChannel
from headwater.adapters.aws.claims import S3Claims

__all__ = ["AwsChannel", "S3Claims"]
