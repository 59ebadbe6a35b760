"""Stored names and versions of message types, their codec, the strict checks at the edges, and upcasters.

A type's stored name is explicit or `<service>.<ClassName>`, never a Python path. Payload classes are our `Event` and
`Command`, or dataclasses, attrs classes and pydantic models adopted by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, cast

import msgspec

from headwater.errors import DeclarationError, HeadwaterError, SchemaError
from headwater.message import Declared, Kind, tag_of

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
SQUARE = bytes.maketrans(b"{}", b"[]")
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

Upcast = Callable[[dict[str, Any]], dict[str, Any]]


class MessageType:
    """One payload class with its stored name, version, kind, owner, and how it is encoded and decoded."""

    def __init__(self, payload: type, declared: Declared, service: str) -> None:
        if not compares(payload):
            raise DeclarationError(f"{payload.__name__} has eq=False: what is stored is compared with what was given")
        self.payload = payload
        self.kind: Kind = declared.kind
        self.service = declared.service or service
        self.category = declared.category
        self.version = declared.version
        self.name = declared.stored or f"{self.service}.{payload.__name__}"
        self.tags = declared.tags
        self.encode, self.decode, self.convert = codec_of(payload)

    def to_bytes(self, payload: Any) -> bytes:
        """Encode a payload; refuses what would not decode to an equal value, or what the strict checks refuse elsewhere."""
        try:
            data = self.encode(payload)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise SchemaError(f"{self.name}: cannot be stored: {error}") from error
        if len(data) > MAX_BYTES:
            raise SchemaError(
                f"{self.name}: {len(data):,} bytes is over the limit of {MAX_BYTES:,}; store the large part elsewhere and refer to it"
            )
        self._check_equal(payload, data)
        check_depth(data)
        return data

    def tags_of(self, payload: Any) -> tuple[str, ...]:
        """The tags of an event: one of each field that its class names, one an element where that is several, none for None."""
        found: dict[str, None] = {}
        for name, field in self.tags.items():
            value = getattr(payload, field)
            for one in value if isinstance(value, list | tuple | set | frozenset) else (value,):
                if one is not None:
                    found[tag_of(name, one)] = None
        return tuple(found)

    def _check_equal(self, payload: Any, data: bytes) -> None:
        try:
            same = self.decode(data) == payload
        except (msgspec.MsgspecError, ValueError) as error:
            hint = " (JSON has no NaN or infinity)" if "null" in str(error) else ""
            raise SchemaError(f"{self.name}: cannot be stored: {error}{hint}") from error
        if not same:
            raise SchemaError(
                f"{self.name}: a value would change when stored (NaN, infinity, or a type that JSON lacks)"
            )


def codec_of(payload: type) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any], Callable[[Any], Any]]:
    """How a class is encoded, decoded from bytes, and built from plain values."""
    if hasattr(payload, "model_validate_json"):
        model = cast(Any, payload)
        return (
            (lambda value: cast(bytes, value.model_dump_json().encode())),
            model.model_validate_json,
            lambda value: model.model_validate_json(msgspec.json.encode(value)),
        )
    try:
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(payload)
    except TypeError as error:
        raise DeclarationError(f"{payload.__name__} cannot be a message: {error}") from error
    encode = msgspec.json.Encoder().encode
    return encode, decoder.decode, lambda value: decoder.decode(encode(value))


def compares(payload: type) -> bool:
    """Whether two values of the class with equal fields are equal."""
    config = getattr(payload, "__struct_config__", None)
    return bool(config.eq) if config is not None else cast(Any, payload).__eq__ is not object.__eq__


class Schema:
    """The message types that one app knows, by class and by stored name."""

    def __init__(self, service: str) -> None:
        self.service = service
        self._by_class: dict[type, MessageType] = {}
        self._by_name: dict[str, MessageType] = {}
        self._upcasts: dict[tuple[str, int], tuple[str, Upcast]] = {}

    def add(self, payload: type, declared: Declared | None = None) -> MessageType:
        """Register a class (once is enough); `declared` adopts a class that is not our `Event` or `Command`."""
        known = self._by_class.get(payload)
        if known is not None:
            return known
        found = declared or cast("Declared | None", getattr(payload, "__declared__", None))
        if found is None:
            raise DeclarationError(
                f"{payload.__name__} is not an Event or Command; subclass one, or adopt it: app.adopt({payload.__name__}, kind='event')"
            )
        kind = MessageType(payload, found, self.service)
        _check_tags(kind)
        other = self._by_name.setdefault(kind.name, kind)
        if other is not kind:
            raise DeclarationError(
                f"two classes are stored as {kind.name!r} ({other.payload.__qualname__}, {payload.__qualname__}); give one `stored=`"
            )
        self._by_class[payload] = kind
        return kind

    def of(self, payload: type) -> MessageType:
        """The type of a class; DeclarationError if it was never added to the app."""
        found = self._by_class.get(payload)
        return found if found is not None else self.add(payload)

    def named(self, name: str) -> MessageType:
        """The type of a stored name; SchemaError if the app does not know it."""
        found = self._by_name.get(name)
        if found is None:
            raise SchemaError(
                f"unknown message type {name!r}; add its class to the app (app.add), or an upcaster to one it knows: "
                f"{', '.join(sorted(self._by_name)) or 'none'}"
            )
        return found

    def knows(self, name: str) -> bool:
        """Whether a stored name (or an older name with an upcaster) is known."""
        return name in self._by_name or any(name == old for old, _ in self._upcasts)

    def names(self, payload: type) -> frozenset[str]:
        """The stored name of a class, and the older names that upcasters lead to it."""
        names = {self.of(payload).name}
        while older := {old for (old, _), (to, _) in self._upcasts.items() if to in names} - names:
            names |= older
        return frozenset(names)

    def types(self) -> list[MessageType]:
        """All types, by name."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    def upcast(self, name: str, version: int, step: Upcast, to: str = "") -> None:
        """Register the step from `version` of a stored type to the next; `to` is its new name where it was renamed."""
        if (name, version) in self._upcasts:
            raise DeclarationError(f"there are two upcasters from {name} version {version}; keep one")
        self._upcasts[name, version] = (to or name, step)

    def decode(self, name: str, version: int, data: bytes) -> Any:
        """The payload of stored bytes, brought to the present version. Raises SchemaError."""
        found = self._by_name.get(name)
        try:
            if found is not None and found.version == version:
                return found.decode(data)
            return self._decode_old(name, version, msgspec.json.decode(data))
        except HeadwaterError:
            raise
        except Exception as error:  # upcasters and classes run a user's code
            cause = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise SchemaError(f"{name} version {version}: {cause}") from error

    def _decode_old(self, name: str, version: int, fields: Any) -> Any:
        while True:
            found = self._by_name.get(name)
            if found is not None and found.version == version:
                return found.convert(fields)
            step = self._upcasts.get((name, version))
            if step is None:
                return self._undecodable(name, version, found)
            name, fields, version = step[0], step[1](fields), version + 1

    def _undecodable(self, name: str, version: int, found: MessageType | None) -> Any:
        if found is None:
            return self.named(name)
        if version > found.version:
            raise SchemaError(
                f"{name} version {version} is newer than this app's version {found.version}; upgrade the app"
            )
        raise SchemaError(f"{name} version {version} has no upcaster to {version + 1}; register one with app.upcast")

    def decode_strict(self, name: str, version: int, data: bytes) -> Any:
        """Like `decode`, for bytes from outside: also refuses over-size, deep, duplicate-key, NaN and malformed input."""
        check_size(data)
        check_depth(data)
        payload = self.decode(name, version, data)
        found = self._by_name.get(name)
        if found is None or found.version != version or not _is_canonical(found, payload, data):
            check_strict(data)
        return payload


def _check_tags(kind: MessageType) -> None:
    if kind.tags and kind.kind != "event":
        raise DeclarationError(f"{kind.payload.__name__} is a {kind.kind}: only events have tags")
    fields = {name for base in kind.payload.__mro__ for name in vars(base).get("__annotations__", {})}
    if missing := set(kind.tags.values()) - fields:
        raise DeclarationError(f"{kind.payload.__name__} has no field {min(missing)!r}, by which it should be tagged")


def _is_canonical(found: MessageType, payload: Any, data: bytes) -> bool:
    try:
        return found.encode(payload) == data
    except (TypeError, ValueError, OverflowError):
        return False


def check_size(data: bytes) -> None:
    """Refuse more than 1 MiB."""
    if len(data) > MAX_BYTES:
        raise SchemaError(f"{len(data):,} bytes is over the limit of {MAX_BYTES:,}")


def check_strict(data: bytes) -> Any:
    """Parse JSON from outside; SchemaError for anything that two readers could take differently. Gives plain values."""
    check_size(data)
    check_depth(data)
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_no_duplicates)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"not strict JSON: {error}") from error
    return value


def check_depth(data: bytes) -> None:
    """Refuse more than 64 levels of nesting; what is no JSON may pass, and the parser refuses it."""
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH:
        return
    shape = STRINGS.sub(b"", data).translate(SQUARE, NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        peeled = shape.replace(b"[]", b"")  # the innermost level of every branch
        if peeled == shape:
            break
        shape = peeled
    if b"[]" in shape or shape.count(b"[") > MAX_DEPTH:
        raise SchemaError(f"nested deeper than {MAX_DEPTH} levels")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object has the same key twice")
    return fields
