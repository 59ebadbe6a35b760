"""A publication as one text: CloudEvents 1.0 in their JSON format, which SNS and SQS carry as they are.

SNS and SQS take ten attributes a message and no empty ones, so the attributes stand in the text. A body of JSON is its `data`,
any other its `data_base64`; the key is the extension `partitionkey`. Characters that SQS does not take are escaped.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from headwater.channel import Publication
from headwater.errors import SchemaError

CONTENT_TYPE: Final = "application/cloudevents+json"
KEY: Final = "partitionkey"
DATA: Final = "data"
DATA_BASE64: Final = "data_base64"
RESERVED: Final = frozenset({KEY, DATA, DATA_BASE64})
REFUSED: Final = {"\ufffe": "\\ufffe", "\uffff": "\\uffff"}
"""What SQS does not take and JSON need not escape; control characters it must."""

_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_raw = msgspec.json.Decoder(msgspec.Raw).decode
_value = msgspec.json.Decoder(str | int | float | bool | None).decode
_text = msgspec.json.Decoder(str).decode


def write(publication: Publication) -> str:
    """The text of a publication. Raises SchemaError, saying why it has none."""
    taken = RESERVED.intersection(publication.headers)
    if taken:
        raise SchemaError(f"a header is called {min(taken)}, which CloudEvents keeps for itself: rename it")
    fields: dict[str, Any] = {**publication.headers, KEY: publication.key}
    if publication.body:
        as_json = _is_json_type(publication.headers) and _is_json(publication.body)
        fields |= {DATA: msgspec.Raw(publication.body)} if as_json else {DATA_BASE64: publication.body}
    try:
        found = _encode(fields).decode()
    except UnicodeEncodeError as error:
        raise SchemaError(f"its key or a header is no text: {error}") from error
    for character, escape in REFUSED.items():
        found = found.replace(character, escape)
    return found


def read(text: str) -> tuple[str | None, dict[str, str], bytes]:
    """The key (None if it names none), headers and body of such a text. Raises SchemaError."""
    try:
        fields = _fields(text)
        key = _text(fields.pop(KEY)) if KEY in fields else None
        data, coded = fields.pop(DATA, None), fields.pop(DATA_BASE64, None)
        headers = {name: found for name, raw in fields.items() if (found := _attribute(_value(raw))) is not None}
        if coded is not None:
            return key, headers, b64decode(_text(coded), validate=True)
        return key, headers, _body(data, headers)
    except (msgspec.MsgspecError, ValueError) as error:
        raise SchemaError(f"it is no CloudEvent in JSON: {error}") from error


def is_event(text: str, content_type: str) -> bool:
    """Whether a text is an event in JSON, by what is said of it or by what it says itself."""
    return content_type.startswith(CONTENT_TYPE) or ('"specversion"' in text and text.lstrip().startswith("{"))


def _body(data: msgspec.Raw | None, headers: Mapping[str, str]) -> bytes:
    if data is None:
        return b""
    found = bytes(data)
    return _text(found).encode() if found.startswith(b'"') and not _is_json_type(headers) else found


def _attribute(value: str | float | bool | None) -> str | None:
    return _encode(value).decode() if isinstance(value, bool | int | float) else value


def _is_json_type(headers: Mapping[str, str]) -> bool:
    kind = headers.get("datacontenttype", "application/json").partition(";")[0].strip().lower()
    return kind.endswith(("/json", "+json"))


def _is_json(body: bytes) -> bool:
    """Whether a body comes out of a JSON text byte for byte as it went in."""
    try:
        text = body.decode()
        return bytes(_raw(body)) == body and not any(character in text for character in REFUSED)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
