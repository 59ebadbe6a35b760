"""The errors of AWS's client as ours. What AWS says of a signature may repeat a session's token, so it is not passed on."""

from __future__ import annotations

from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from headwater.errors import ChannelError

MISSING: Final = frozenset(
    {
        "404",
        "AWS.SimpleQueueService.NonExistentQueue",
        "NoSuchKey",
        "NotFound",
        "NotFoundException",
        "QueueDoesNotExist",
    }
)
UNKNOWN: Final = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "MissingAuthenticationToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
DENIED: Final = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthorizationError",
        "AuthorizationErrorException",
        "InvalidSecurity",
        "KMSAccessDenied",
        "KMSAccessDeniedException",
        "OptInRequired",
    }
)
INVALID: Final = frozenset(
    {
        "BatchRequestTooLong",
        "InvalidMessageContents",
        "InvalidParameter",
        "InvalidParameterValue",
        "ValidationError",
        "ValidationException",
    }
)
"""What is wrong with a message itself; anything else may be mended without it."""
LENGTH: Final = 300
"""Characters of what AWS says that are passed on."""


class Missing(ChannelError):
    """A topic or queue is not there: make it with `headwater channel apply`. Or an object of S3."""


class Refused(ChannelError):
    """AWS will never take this request: something is wrong with what it carries."""

    retryable = False


class Unauthorized(ChannelError):
    """AWS does not know who asks: look at the credentials that its client finds."""


def translate(error: Exception, operation: str, place: str) -> ChannelError:
    """What an operation at a place has failed with, as an error of ours."""
    match error:
        case ClientError():
            return _answered(error, operation, place)
        case NoCredentialsError() | PartialCredentialsError():
            return Unauthorized(
                "AWS's client finds no credentials: set AWS_PROFILE or AWS_ACCESS_KEY_ID, or give the machine a role"
            )
        case ParamValidationError():
            return Refused(f"{operation} is malformed: {str(error)[:LENGTH]}")
        case ConnectionError() | HTTPClientError() | OSError():
            return ChannelError(
                f"{place} does not answer ({type(error).__name__}): is it there, and is this its region?"
            )
        case BotoCoreError():
            return ChannelError(f"{operation} failed at {place}: {type(error).__name__}")
    raise error


def _answered(error: ClientError, operation: str, place: str) -> ChannelError:
    told = error.response.get("Error", {})
    code = str(told.get("Code", "unknown"))
    if code in UNKNOWN:
        return Unauthorized(
            f"{place} does not know the credentials that AWS's client has found ({code}): mend or renew them"
        )
    said = f"{code}: {str(told.get('Message', ''))[:LENGTH]}"
    if code in MISSING:
        return Missing(f"{operation}: it is not there ({said}); make it: headwater channel apply")
    if code in DENIED:
        return ChannelError(f"{place} does not allow {operation} ({said}): give it to the role that asks")
    if code in INVALID:
        return Refused(f"{place} refuses {operation}: {said}")
    return ChannelError(f"{place} cannot do {operation} now: {said}")
