"""What topics, queues, message groups and messages are called in SNS and SQS, which take few characters and short names.

A name that is plain is kept, so that people know it again: a dot becomes `_`, `orders.sales` is `headwater-orders_sales.fifo`.
Any other is cut and ends with a digest of the whole, and no plain name looks like one. A queue says in its tags whose it is.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final
from urllib.parse import quote, unquote

from headwater.errors import ConfigurationError

FIFO: Final = ".fifo"
LONGEST_TOPIC: Final = 256
LONGEST_QUEUE: Final = 80
LONGEST_TAG: Final = 256
LONGEST_ID: Final = 128
"""Of a message group and of a deduplication id."""
GROUP_TAG: Final = "headwater-group"
TOPIC_TAG: Final = "headwater-topic"

_plain = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.]|-(?!-))*(?<!-)").fullmatch
_digested = re.compile(r"-[0-9a-f]{16}$").search
_printable = re.compile(r"[!-~]+").fullmatch


class Names:
    """The names of one channel: they begin with its prefix, and end with `.fifo` where order is kept."""

    def __init__(self, prefix: str, *, fifo: bool) -> None:
        self.prefix = prefix
        self._end = FIFO if fifo else ""

    def topic(self, topic: str) -> str:
        """The name of a topic in SNS."""
        return self._fit([topic], LONGEST_TOPIC)

    def queue(self, group: str, topic: str) -> str:
        """The name of the queue in SQS that has a topic's messages for a group."""
        return self._fit([group, topic], LONGEST_QUEUE)

    def _fit(self, parts: list[str], longest: int) -> str:
        room = longest - len(self.prefix) - len(self._end)
        found = "--".join(parts)
        if not all(map(_plain, parts)) or len(found) > room or _digested(found):
            digest = f"-{_digest(*parts)[:16]}"
            found = re.sub("[^A-Za-z0-9.-]", "-", found)[: room - len(digest)] + digest
        return f"{self.prefix}{found.replace('.', '_')}{self._end}"


def tags(group: str, topic: str) -> dict[str, str]:
    """The tags of a queue. Raises ConfigurationError where a name is too long for one."""
    found = {GROUP_TAG: _escape(group), TOPIC_TAG: _escape(topic)}
    for tag, value in found.items():
        if len(value) > LONGEST_TAG:
            raise ConfigurationError(f"{value[:60]}… is longer than a {tag} in SQS may be: give it a shorter name")
    return found


def tagged(found: dict[str, str]) -> tuple[str, str] | None:
    """The group and topic of a queue by its tags; None if it is not one of ours."""
    group, topic = found.get(GROUP_TAG), found.get(TOPIC_TAG)
    return None if group is None or topic is None else (_unescape(group), _unescape(topic))


def message_group(key: str) -> str:
    """The message group of a key: the key itself, or a digest where SQS would not take it."""
    return key if len(key) <= LONGEST_ID and _printable(key) else _digest(key)


def deduplication_id(*parts: str) -> str:
    """The deduplication id of what these parts name together."""
    return _digest(*parts)


def _digest(*parts: str) -> str:
    """A digest that differs wherever a part does."""
    found = sha256()
    for part in parts:
        text = part.encode()
        found.update(b"%d:%b" % (len(text), text))
    return found.hexdigest()


def _escape(name: str) -> str:
    """A name in the characters of a tag: `=XX` stands for a byte that is not one of them."""
    return quote(name, safe="").replace("~", "%7E").replace("%", "=")


def _unescape(value: str) -> str:
    return unquote(value.replace("=", "%"))
