"""The works over PostgreSQL: ours, `eventsourcing` on psycopg in its two modes, Emmett on Node, a raw psycopg pipeline."""

from __future__ import annotations

WORKS = {
    "W1": "append:new_streams",
    "W3": "command:commands",
    "W4": "replay:replays",
    "W5": "log:reads",
    "W5p": "projection:catch_up",
    "W6": "size:bytes_an_event",
    "W7": "growth:growth",
    "DCB": "append:conditional",
}
