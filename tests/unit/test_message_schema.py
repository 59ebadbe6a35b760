"""Messages as they are declared, named, adopted and encoded."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import DeclarationError, SchemaError
from headwater.message import (
    Command,
    Declared,
    Event,
    Metadata,
    caused_by,
    decode_metadata,
    encode_metadata,
    encode_metadata_as_json,
    stream_category,
    stream_key,
    stream_of,
)
from headwater.schema import MAX_BYTES, MAX_DEPTH, Schema
from headwater.testing.contracts.database.values import recorded


class Withdrawn(Event):
    account_id: str
    cents: int


class Measured(Event):
    value: float | None
    extra: Any = None


class TakePayment(Command, service="payments"):
    order: str


# --- declarations ---


def test_a_message_is_frozen_positional_and_compared_by_value():
    event = Withdrawn("a", cents=5)
    assert (event.account_id, event.cents) == ("a", 5)
    assert event == Withdrawn("a", 5) != Withdrawn("a", 6)
    with pytest.raises(AttributeError):
        event.cents = 6  # type: ignore[misc]


def test_a_class_statement_says_kind_service_category_name_and_version():
    class Charged(Event, service="pay", category="pay.Charge", stored="pay.ChargedV", version=3):
        cents: int

    assert Charged.__declared__ == Declared("event", "pay", "pay.Charge", "pay.ChargedV", 3)
    assert TakePayment.__declared__ == Declared("command", "payments")
    assert Withdrawn.__declared__ == Declared("event")


def test_a_subclass_has_its_kind_and_fields_and_its_own_name():
    class TakeRefund(TakePayment):
        reason: str

    assert TakeRefund.__declared__ == Declared("command")
    assert TakeRefund("o-1", "late").order == "o-1"
    assert Schema("shop").add(TakeRefund).name == "shop.TakeRefund"


def test_the_stored_name_is_explicit_or_of_the_service_and_class():
    class Named(Event, stored="old.Name"):
        pass

    schema = Schema("bank")
    assert schema.add(Withdrawn).name == "bank.Withdrawn"
    assert schema.add(TakePayment).name == "payments.TakePayment"
    assert schema.add(Named).name == "old.Name"
    assert [one.name for one in schema.types()] == ["bank.Withdrawn", "old.Name", "payments.TakePayment"]


def test_adding_a_class_again_gives_the_same_type():
    schema = Schema("bank")
    assert schema.add(Withdrawn) is schema.add(Withdrawn) is schema.of(Withdrawn) is schema.named("bank.Withdrawn")


def test_two_classes_of_one_stored_name_are_refused():
    class Other(Event, stored="bank.Withdrawn"):
        pass

    schema = Schema("bank")
    schema.add(Withdrawn)
    with pytest.raises(DeclarationError, match="stored="):
        schema.add(Other)
    assert schema.named("bank.Withdrawn").payload is Withdrawn


def test_a_class_that_is_no_message_is_refused_with_the_way_to_adopt_it():
    class Plain:
        pass

    for use in (Schema("bank").add, Schema("bank").of):
        with pytest.raises(DeclarationError, match="adopt it"):
            use(Plain)


def test_a_class_that_cannot_be_compared_is_refused():
    class Blind(Event, eq=False):
        cents: int

    with pytest.raises(DeclarationError, match="eq=False"):
        Schema("bank").add(Blind)


def test_a_class_that_json_cannot_hold_is_refused_at_declaration():
    class Odd(Event):
        field: int | msgspec.Struct | Withdrawn

    with pytest.raises(DeclarationError, match="Odd"):
        Schema("bank").add(Odd)


# --- streams and metadata ---


@pytest.mark.parametrize(
    ("stream", "category", "key"),
    [
        ("bank.Account/17", "bank.Account", "17"),
        ("acme:bank.Account/17", "bank.Account", "17"),
        ("bank.Account/a:b/c", "bank.Account", "a:b/c"),
        ("bank.Account/", "bank.Account", ""),
    ],
)
def test_a_stream_tells_its_category_and_key(stream, category, key):
    assert (stream_category(stream), stream_key(stream)) == (category, key)


@pytest.mark.parametrize("tenant", ["", "acme"])
def test_a_stream_is_made_of_its_parts(tenant):
    stream = stream_of("bank.Account", "k/1:2", tenant)
    assert (stream_category(stream), stream_key(stream)) == ("bank.Account", "k/1:2")
    assert stream.startswith(f"{tenant}:") is bool(tenant)


def test_metadata_reads_back_and_what_is_empty_takes_no_room():
    assert encode_metadata(Metadata()) == b"@"
    assert encode_metadata_as_json(Metadata()) == b"{}"
    full = Metadata("c", "m", "00-trace", "ädä", "acme")
    assert decode_metadata(encode_metadata(full)) == full
    assert encode_metadata(Metadata("c", "m")) == b'{"correlation":"c","causation":"m"}'


ID = "0198c5f0-9c00-7000-8000-0000000000a1"
OTHER = "0198c5f0-9c00-7000-8000-0000000000ff"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("metadata", "size"),
    [
        (Metadata(ID), 17),
        (Metadata("", ID), 17),
        (Metadata(ID, OTHER), 33),
        (Metadata(ID, OTHER, TRACE), 58),
        (Metadata("", "", TRACE), 26),
        (Metadata(ID, OTHER, TRACE, "user-417"), 66),
        (Metadata(ID, OTHER, TRACE, "ädä", "acme"), 68),
        (Metadata(ID, "", "", "", "acme"), 22),
        (Metadata(actor="{ada}"), 6),
    ],
)
def test_metadata_of_usual_forms_is_packed(metadata: Metadata, size: int):
    packed = encode_metadata(metadata)
    assert len(packed) == size
    assert decode_metadata(packed) == metadata


@pytest.mark.parametrize(
    "metadata",
    [
        Metadata(ID.upper()),
        Metadata(ID.replace("-", "")),
        Metadata(ID + "0"),
        Metadata(" " + ID[:-1]),
        Metadata(ID[:7] + "-" + ID[7:8] + ID[9:]),
        Metadata(ID, "order-17"),
        Metadata(ID, "", TRACE.upper()),
        Metadata(ID, "", TRACE[:-2]),
        Metadata(ID, "", TRACE + "00"),
        Metadata(ID, "", "01" + TRACE[2:]),
        Metadata(ID, "", "00-"),
        Metadata(ID, actor="a\0b"),
        Metadata(ID, tenant="a\0b"),
    ],
)
def test_metadata_of_other_forms_is_json(metadata: Metadata):
    stored = encode_metadata(metadata)
    assert stored == encode_metadata_as_json(metadata)
    assert stored[:1] == b"{"
    assert decode_metadata(stored) == metadata


def test_metadata_that_was_stored_as_json_is_read():
    metadata = Metadata(ID, OTHER, TRACE, "user-417", "acme")
    assert decode_metadata(encode_metadata_as_json(metadata)) == metadata


def test_what_a_message_causes_keeps_its_correlation_or_starts_one():
    cause = recorded("bank.Account/a", 3)
    assert decode_metadata(caused_by(cause, Metadata())) == Metadata(cause.id, cause.id)
    full = Metadata("c", "m", "trace", "ada", "acme")
    assert decode_metadata(caused_by(cause, full)) == Metadata("c", cause.id, "trace", "ada", "acme")
    assert cause.metadata == decode_metadata(cause.meta)


# --- encoding refuses what would not come back ---


def stored(payload: Any) -> bytes:
    return Schema("bank").add(type(payload)).to_bytes(payload)


def test_a_payload_is_plain_json():
    assert stored(Withdrawn("Zoë", 5)) == '{"account_id":"Zoë","cents":5}'.encode()


@pytest.mark.parametrize("value", [0.1, -0.0, 1e300, 5e-324, 3.0, sys.float_info.max, None])
def test_a_float_that_comes_back_is_stored(value):
    schema = Schema("bank")
    data = schema.add(Measured).to_bytes(Measured(value))
    assert schema.decode("bank.Measured", 1, data) == Measured(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused(value):
    class Strict(Event):
        value: float

    for payload in (Measured(value), Measured(1.0, value), Measured(1.0, {"a": [value]}), Strict(value)):
        with pytest.raises(SchemaError, match="NaN"):
            stored(payload)


@pytest.mark.parametrize("extra", [(1, 2), {1, 2}, {1: "a"}, Decimal("1.1"), datetime(2026, 1, 1, tzinfo=UTC), b"x"])
def test_a_value_that_json_would_change_is_refused_where_its_type_is_free(extra):
    with pytest.raises(SchemaError, match="would change"):
        stored(Measured(1.0, extra))


@pytest.mark.parametrize("extra", [None, True, 5, 2.5, "x", [1, [2]], {"a": {"b": [None]}}, []])
def test_a_free_value_that_comes_back_is_stored(extra):
    assert json.loads(stored(Measured(1.0, extra)))["extra"] == extra


def test_values_of_other_types_come_back_where_their_type_is_declared():
    class Rich(Event):
        when: datetime
        price: Decimal
        raw: bytes
        pair: tuple[int, str]
        some: frozenset[int]
        by: dict[int, str]

    payload = Rich(datetime(2026, 1, 1, tzinfo=UTC), Decimal("1.10"), b"\x00", (1, "a"), frozenset({1}), {1: "a"})
    schema = Schema("bank")
    assert schema.decode("bank.Rich", 1, schema.add(Rich).to_bytes(payload)) == payload


@pytest.mark.parametrize("cents", ["5", 5.5, None, True, [5]])
def test_a_value_of_a_wrong_type_is_refused_before_it_is_in_the_log(cents):
    with pytest.raises(SchemaError, match="cents"):
        stored(Withdrawn("a", cents))


def test_a_value_outside_its_bounds_is_refused_before_it_is_in_the_log():
    class Paid(Event):
        cents: Annotated[int, msgspec.Meta(ge=0)]

    assert stored(Paid(0)) == b'{"cents":0}'
    with pytest.raises(SchemaError, match="cents"):
        stored(Paid(-1))


@pytest.mark.parametrize("cents", [2**63, -(2**63) - 1, 2**200])
def test_big_integers_come_back_exactly(cents):
    schema = Schema("bank")
    data = schema.add(Withdrawn).to_bytes(Withdrawn("a", cents))
    assert schema.decode("bank.Withdrawn", 1, data).cents == cents


@pytest.mark.parametrize("payload", [Withdrawn("\ud800", 1), Measured(1.0, {"\udfff": 1}), Withdrawn("a", 10**5000)])
def test_text_and_numbers_that_json_cannot_hold_are_refused(payload):
    with pytest.raises(SchemaError, match="cannot be stored"):
        stored(payload)


def test_a_value_that_holds_itself_is_refused():
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(SchemaError):
        stored(Measured(1.0, loop))


def test_what_is_nested_too_deep_is_refused_before_it_is_in_the_log():
    def nested(levels: int) -> Any:
        return [] if levels == 1 else [nested(levels - 1)]

    stored(Measured(1.0, nested(MAX_DEPTH - 1)))
    with pytest.raises(SchemaError, match="deeper"):
        stored(Measured(1.0, nested(MAX_DEPTH)))


def test_a_mebibyte_is_the_most():
    room = MAX_BYTES - len(stored(Withdrawn("", 1)))
    assert len(stored(Withdrawn("x" * room, 1))) == MAX_BYTES
    with pytest.raises(SchemaError, match="over the limit"):
        stored(Withdrawn("x" * (room + 1), 1))


@settings(max_examples=60, deadline=None, database=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    )
)
def test_whatever_is_stored_comes_back_equal(extra):
    schema = Schema("bank")
    kind = schema.add(Measured)
    try:
        data = kind.to_bytes(Measured(None, extra))
    except SchemaError:
        return
    assert schema.decode("bank.Measured", 1, data) == Measured(None, extra)
    assert schema.decode_strict("bank.Measured", 1, data) == Measured(None, extra)


# --- classes that are adopted ---


@dataclass(frozen=True)
class Shipped:
    order: str
    items: list[int]
    weight: float = 0.0


@attrs.frozen
class Packed:
    order: str
    items: list[int] = attrs.field(factory=list)


class Billed(pydantic.BaseModel):
    order: str
    when: datetime
    cents: int = pydantic.Field(ge=0, default=0)


class StrictlyBilled(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    when: datetime


@pytest.mark.parametrize(
    "payload",
    [
        Shipped("o-1", [1, 2], 2.5),
        Packed("o-1", [3]),
        Billed(order="o-1", when=datetime(2026, 1, 1, tzinfo=UTC), cents=5),
        StrictlyBilled(when=datetime(2026, 1, 1, tzinfo=UTC)),
    ],
    ids=lambda payload: type(payload).__name__,
)
def test_dataclasses_attrs_and_pydantic_models_are_adopted_by_name(payload):
    schema = Schema("shop")
    name = f"logistics.{type(payload).__name__}"
    kind = schema.add(type(payload), Declared("event", "logistics", version=2))
    data = kind.to_bytes(payload)
    assert (kind.name, kind.kind, kind.version) == (name, "event", 2)
    assert json.loads(data).keys() == schema.of(type(payload)).payload.__annotations__.keys() - {"model_config"}
    assert schema.decode(name, 2, data) == schema.decode_strict(name, 2, data) == payload
    schema.upcast(name, 1, lambda fields: fields)
    assert schema.decode(name, 1, data) == payload


@pytest.mark.parametrize(
    "payload", [Shipped("o-1", [], math.nan), Shipped("o-1", ["x"]), Packed("\ud800"), Packed("o-1", [None])]
)
def test_an_adopted_class_is_held_to_the_same_rules(payload):
    kind = Schema("shop").add(type(payload), Declared("event"))
    with pytest.raises(SchemaError, match=kind.name):
        kind.to_bytes(payload)


def test_a_pydantic_model_is_held_to_its_own_rules():
    schema = Schema("shop")
    kind = schema.add(Billed, Declared("event"))
    with pytest.raises(SchemaError, match="cents"):
        kind.to_bytes(Billed.model_construct(order="o-1", when=datetime(2026, 1, 1, tzinfo=UTC), cents=-1))
    for data in (b'{"order":"o-1"}', b'{"order":1,"when":"2026-01-01"}', b"{", b"[]"):
        with pytest.raises(SchemaError, match="version 1"):
            schema.decode("shop.Billed", 1, data)


# --- what is said of a type, and of what cannot be stored ---


def test_a_stream_without_a_tenant_has_no_prefix():
    assert stream_of("bank.Account", "a") == "bank.Account/a"


def test_a_type_keeps_the_category_it_was_declared_with():
    class Ordered(Event, category="shop.Order"):
        order: str

    assert Schema("mail").add(Ordered).category == "shop.Order"


class Counted(Event):
    value: float


def test_only_a_number_that_is_none_is_explained_by_json():
    class Priced(Event):
        cents: Annotated[int, msgspec.Meta(ge=0)]

    with pytest.raises(SchemaError, match=r"\.value` \(JSON has no NaN or infinity\)$"):
        Schema("bank").add(Counted).to_bytes(Counted(math.nan))
    with pytest.raises(SchemaError, match=r"\$\.cents`$"):
        Schema("bank").add(Priced).to_bytes(Priced(-1))


def test_a_dataclass_that_cannot_be_compared_is_refused():
    @dataclass(eq=False)
    class Opened:
        owner: str

    with pytest.raises(DeclarationError, match="eq=False"):
        Schema("bank").add(Opened, Declared("event"))
