"""What operations refuse."""

from __future__ import annotations

from headwater.errors import HeadwaterError


class NotPossible(HeadwaterError):
    """It cannot be done as it was asked for; the message says why, and what can be done."""
