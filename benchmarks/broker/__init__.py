"""The works over a broker: our channels and consumer, FastStream, and the raw clients; all on the same topics, bytes and headers."""

from __future__ import annotations

WORKS = {
    "M1": "publish:publishing",
    "M2": "consume:consuming",
    "M3": "latency:latency",
    "M4": "effects:effects",
    "SCALE": "scale:scale",
}
WITH_DATABASE = frozenset({"M3", "M4"})
"""Those that need PostgreSQL as well."""
