"""CloudEvents 1.0 in Kafka's binary binding: attributes as `ce_` headers, `datacontenttype` as `content-type`, the key as key.

Every name has one place on either side. A header that is no attribute, which others may have set, reads `kafka:NAME`: no
attribute can be called that. `kafka:headwater-group` is ours, and says for which group alone a message is.
"""

from __future__ import annotations

from typing import Final

from confluent_kafka import Message

from headwater.channel import Delivery, Publication

Place = tuple[str, int]
"""A topic, by its whole name, and one of its partitions."""

GROUP: Final = "headwater-group"
FOREIGN: Final = "kafka:"
CONTENT_TYPE: Final = "content-type"
KNOWN: Final = 1_000
"""Names that are remembered; ours are some twenty."""


class _ToKafka(dict[str, str]):
    """The header of an attribute. Raises UnicodeEncodeError for what is no text, ValueError for what no header can be."""

    def __missing__(self, name: str) -> str:
        name.encode()
        if "\0" in name:
            raise ValueError("a header is called something with a NUL in it")
        if name == "datacontenttype":
            found = CONTENT_TYPE
        elif name.startswith(FOREIGN):
            found = name.removeprefix(FOREIGN)
        else:
            found = f"ce_{name}"
        return self.setdefault(name, found) if len(self) < KNOWN else found


class _FromKafka(dict[str, str]):
    """The attribute of a header, or `kafka:` and its name."""

    def __missing__(self, name: str) -> str:
        attribute = name.removeprefix("ce_")
        if name == CONTENT_TYPE:
            found = "datacontenttype"
        elif attribute in (name, "datacontenttype") or attribute.startswith(FOREIGN):
            found = f"{FOREIGN}{name}"
        else:
            found = attribute
        return self.setdefault(name, found) if len(self) < KNOWN else found


_to_kafka: Final = _ToKafka()
_from_kafka: Final = _FromKafka()
_for_group: Final = f"{FOREIGN}{GROUP}"


def headers_of(publication: Publication) -> dict[str, str | bytes | None]:
    """The headers of a publication. Raises UnicodeEncodeError or ValueError for a name that none can have.

    That a value is text, the producer finds out: it encodes them faster.
    """
    found: dict[str, str | bytes | None] = {_to_kafka[name]: value for name, value in publication.headers.items()}
    if publication.group:
        found[GROUP] = publication.group
    return found


class Reader:
    """Reads messages for a group, skipping those for another; `names` gives the topic of a topic's whole name."""

    def __init__(self, names: dict[str, str], group: str) -> None:
        self._names = names
        self._group = group

    def read(self, messages: list[Message], reached: dict[Place, int], found: list[Delivery]) -> dict[Place, int]:
        """Append deliveries; the answer is what comes next in each place that messages were of.

        What is of no place in `reached`, or before what was reached there, is stale: it is passed over. The list is used up:
        a message that is gone at once costs the garbage collector nothing.
        """
        names, group = self._names, self._group
        last: dict[Place, int] = {}
        messages.reverse()
        while messages:
            message = messages.pop()
            topic: str = message.topic()  # type: ignore[assignment]  # a message that was fetched has all of these
            partition: int = message.partition()  # type: ignore[assignment]
            offset: int = message.offset()  # type: ignore[assignment]
            place = (topic, partition)
            if offset < reached.get(place, offset + 1):
                continue
            reached[place] = last[place] = offset + 1
            try:
                headers = {_from_kafka[name]: value.decode() for name, value in message.headers() or ()}  # type: ignore[str-unpack,union-attr]
                key = (message.key() or b"").decode()
            except (UnicodeDecodeError, AttributeError):
                headers, key = _forced(message)
            if headers.pop(_for_group, group) == group:
                found.append(Delivery(names[topic], key, headers, message.value() or b"", offset, partition))
        return last


def place_of(message: Message) -> Place:
    """Where a message is."""
    return message.topic(), message.partition()  # type: ignore[return-value]  # one that was fetched has both


def _forced(message: Message) -> tuple[dict[str, str], str]:
    """Headers and key that are no text, or nothing, as somebody else may have written them."""
    headers = {_from_kafka[name]: _text(value) for name, value in message.headers() or ()}  # type: ignore[str-unpack]
    return headers, _text(message.key())


def _text(value: str | bytes | None) -> str:
    return value if isinstance(value, str) else (value or b"").decode("utf-8", "backslashreplace")
