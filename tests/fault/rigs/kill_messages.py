"""The commands and events of the bank and the vault of the `kill` rig."""

from __future__ import annotations

import msgspec

from headwater import Command, Event


class Pay(Command):
    account: str
    number: int
    cents: int
    note: str = ""


class Move(Command):
    account: str
    number: int
    cents: int
    purse: str


class Refund(Command):
    account: str
    number: int
    cents: int


class Fill(Command, service="vault"):
    purse: str
    number: int
    cents: int


class Paid(Event, service="bank", category="Account"):
    account: str
    number: int
    cents: int
    note: str = ""


class Moved(Event, service="bank", category="Account"):
    account: str
    number: int
    cents: int
    purse: str


class Refunded(Event, service="bank", category="Account"):
    account: str
    number: int
    cents: int


class Filled(Event, service="vault", category="Purse"):
    purse: str
    number: int
    cents: int


class Book(Command):
    room: str
    guest: str
    number: int


class Booked(Event, service="bank", category="Booking", tags="room guest"):
    room: str
    guest: str
    number: int


class Reminder(Event, service="bank", category="reminder"):
    number: int


class Late(Event, service="bank", category="late"):
    number: int


def number_of(data: bytes) -> int:
    """The payment that a message is about."""
    return int(msgspec.json.decode(data)["number"])
