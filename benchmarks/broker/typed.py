"""The event as FastStream's documentation types it: a pydantic model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydantic import BaseModel


class Line(BaseModel):
    order_id: str
    customer_id: str
    sku: str
    quantity: int
    cents: int
    note: str


Store = Callable[[str, Line], Awaitable[None]]
"""Stores an event under the id of its message, once."""
StoreMany = Callable[[Sequence[str], Sequence[Any]], Awaitable[None]]
"""The same for many, of any class."""
