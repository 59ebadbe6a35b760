"""Message types of every sort that an app may have, for bytes to be decoded into."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import uuid
from typing import Annotated, Any, Literal

import attrs
import msgspec
import pydantic

from headwater import Aggregate, App, Command, Event, decide, evolve
from headwater.schema import Schema


class Line(msgspec.Struct, frozen=True):
    """A part of an order."""

    sku: str
    count: Annotated[int, msgspec.Meta(ge=1)]
    price: decimal.Decimal


class Placed(Event, version=3):
    """An event with a field of each kind; there were two versions before it."""

    order_id: str
    lines: list[Line]
    at: dt.datetime
    who: uuid.UUID
    weight: float = 0.0
    state: Literal["new", "old"] = "new"
    tags: set[str] = set()
    notes: dict[str, str | int | None] = {}
    rest: Any = None


class Place(Command):
    """A command with a few fields."""

    order_id: str
    count: int = 1
    weight: float = 0.0
    rest: Any = None


@dataclasses.dataclass(frozen=True)
class Packed:
    """A dataclass."""

    order_id: str
    boxes: int
    day: dt.date | None = None


@attrs.frozen
class Sent:
    """An attrs class."""

    order_id: str
    carrier: str
    seconds: float = 0.0


class Returned(pydantic.BaseModel):
    """A pydantic model."""

    model_config = pydantic.ConfigDict(frozen=True)

    order_id: str
    cents: int
    why: str = pydantic.Field(default="", max_length=100)
    at: dt.datetime | None = None


class Order(Aggregate, key="order_id"):
    """What takes the command."""

    count: int = 0

    @decide
    def place(self, command: Place) -> Placed:
        """Take it."""
        return Placed(command.order_id, [], dt.datetime(2026, 1, 1, tzinfo=dt.UTC), uuid.UUID(int=0))

    @evolve
    def placed(self, event: Placed) -> None:
        """Count."""
        self.count += 1


def _second(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "order_id": str(fields.pop("id"))}


def _third(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "lines": [], "who": "00000000-0000-0000-0000-000000000000"}


def app() -> App:
    """An app with all of them, and upcasters."""
    made = App("fuzz")
    made.add(Order, Place, Placed)
    made.adopt(Packed, kind="event", stored="fuzz.Packed")
    made.adopt(Sent, kind="event", stored="fuzz.Sent")
    made.adopt(Returned, kind="event", stored="fuzz.Returned")
    made.upcast("fuzz.Placed", 1)(_second)
    made.upcast("fuzz.Placed", 2)(_third)
    return made


def schema() -> Schema:
    """What the app knows."""
    return app().schema
