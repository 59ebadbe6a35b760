"""The URL of a channel on SNS and SQS: `aws://?region=eu-west-1&prefix=shop-`; who we are, AWS's own client finds out."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct

from headwater.errors import ConfigurationError

SECONDS: Final = {"visibility": (2, 43_200), "poll": (1, 20)}
"""Options that are whole seconds, and what AWS takes of each."""
POLL: Final = 5
FLAGS: Final = ("standard", "plaintext")
LONGEST_PREFIX: Final = 30
EXAMPLE: Final = "write aws://?region=eu-west-1"

_prefix = re.compile(r"[A-Za-z0-9_-]*").fullmatch
_account = re.compile(r"\d{12}|").fullmatch
_region = re.compile(r"[a-z0-9-]*").fullmatch


class AwsOptions(Struct, frozen=True):
    """What a URL says; what it does not say of `region`, AWS's own settings do.

    `prefix` begins the names of all topics and queues. `visibility`: seconds for which what a member has fetched is nobody
    else's; they are renewed while it lives. `poll`: seconds that one call waits for messages, and that a close may take: at
    most half of those, and five where it is not said.
    `standard`: topics and queues without order. `kms`: the key that encrypts them, else SQS's own does. `account`: whose they
    are, else AWS is asked. `endpoint`: where both answer, if not AWS; `plaintext`: it may be http and not on this machine.
    """

    region: str = ""
    prefix: str = "headwater-"
    account: str = ""
    visibility: int = 15
    poll: int = POLL
    standard: bool = False
    kms: str = ""
    endpoint: str = ""
    plaintext: bool = False


def parse_url(url: str) -> AwsOptions:
    """The options of a URL. Raises ConfigurationError; what the URL holds may be secret, and is not repeated."""
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    if "@" in place:
        raise ConfigurationError(
            f"a URL of AWS holds no credentials, AWS's own client finds them (environment, profile, role): {EXAMPLE}"
        )
    if scheme != "aws" or place.strip("/"):
        raise ConfigurationError(f"this URL names no channel on AWS: {EXAMPLE}")
    given: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in AwsOptions.__struct_fields__:
            known = ", ".join(AwsOptions.__struct_fields__)
            raise ConfigurationError(f"{name!r} is no option of a channel on AWS; the options are {known}")
        given[name] = value_of(name, value)
    if "visibility" in given:
        given.setdefault("poll", min(POLL, given["visibility"] // 2))
    return _checked(AwsOptions(**given))


def value_of(name: str, value: str) -> object:
    """What the text of an option says. Raises ConfigurationError."""
    if name in FLAGS:
        if value not in ("yes", "no"):
            raise ConfigurationError(f"{name} is {value!r}: write {name}=yes or {name}=no")
        return value == "yes"
    if name in SECONDS:
        least, most = SECONDS[name]
        if not (value.isascii() and value.isdigit() and least <= int(value[:9]) <= most):
            raise ConfigurationError(f"{name} is {value!r}: write whole seconds from {least} to {most}")
        return int(value)
    return value


def _checked(options: AwsOptions) -> AwsOptions:
    if options.visibility < 2 * options.poll:
        raise ConfigurationError(
            f"visibility={options.visibility} is less than two polls: what a call has waited for is in hand from its beginning on"
        )
    if len(options.prefix) > LONGEST_PREFIX or not _prefix(options.prefix):
        raise ConfigurationError(
            f"the prefix {options.prefix[:60]!r} cannot begin a queue's name: at most {LONGEST_PREFIX} of A-Z, a-z, 0-9, - and _"
        )
    if not _account(options.account):
        raise ConfigurationError(f"the account {options.account[:20]!r} is no number of twelve digits")
    if not _region(options.region):
        raise ConfigurationError(f"{options.region[:40]!r} is no region of AWS: write for example region=eu-west-1")
    check_endpoint(options.endpoint, options.plaintext)
    return options


def check_endpoint(endpoint: str, plaintext: bool) -> None:
    """Raise ConfigurationError where a URL that is given instead of AWS's own is none, or not to be trusted."""
    if not endpoint:
        return
    try:
        parts = urlsplit(endpoint)
        scheme, host, _ = parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        scheme = host = ""
    if not host or scheme not in ("http", "https") or "@" in endpoint:
        raise ConfigurationError("the endpoint is no URL of a server: write for example endpoint=http://127.0.0.1:5000")
    if scheme == "http" and not _local(host) and not plaintext:
        raise ConfigurationError(
            f"the endpoint http://{host} would get every message in plain text over the network: use https, "
            "or say plaintext=yes where the network is yours"
        )


def _local(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
