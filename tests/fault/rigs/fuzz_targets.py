"""The decoders that bytes from outside come to: each takes bytes and raises nothing but what it documents."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.shop.lines import MalformedLine, _orders
from headwater.adapters.memory import MemoryChannel, MemoryDatabase
from headwater.adapters.sqlite import SqliteChannel, SqliteDatabase
from headwater.adapters.sqlite.facts import as_json
from headwater.adapters.sqlite.rows import event_row
from headwater.app import open_channel, open_database
from headwater.clock import SystemClock
from headwater.config import _from_environment, _project, redact, scheme_of
from headwater.errors import ConfigurationError, NotFound, SchemaError
from headwater.message import Recorded
from headwater.operations.commands import read_command
from headwater.outbox import destination, sender, service_of, topic_of
from headwater.repair import read_request
from headwater.schema import check_strict
from headwater.wire import from_headers
from tests.fault.rigs import fuzz_types

CORPUS = Path(__file__).parent.parent / "corpus"
INTEGER = 1 << 63
CLOCK = SystemClock()
APP = fuzz_types.app()
TYPES = [(one.name, version) for one in APP.schema.types() for version in range(one.version + 2)]
SELDOM = 512
FOUND = "found-"
"""A file of the corpus that begins with this broke something once, and need not be valid."""


@dataclass(frozen=True)
class Target:
    """`read` takes bytes; only `allowed` errors may come out. `weight`: how often it is taken. `seeds`: its corpus."""

    name: str
    read: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...]
    weight: int
    seeds: Sequence[bytes]


def wire(data: bytes) -> Recorded:
    """Headers as `name: value` lines, an empty line, and the body."""
    found = from_headers(*parts(data), 1)
    row = event_row(found)
    if not all(-INTEGER <= one < INTEGER for one in row if isinstance(one, int)):
        raise AssertionError("a number fits no column")
    for one in row:
        if isinstance(one, str):
            one.encode()
    as_json([(found.stream, found.version)])
    for of_stream in (service_of, destination, sender):
        of_stream(found.stream)
    topic_of(found, "fuzz")
    found.metadata.tenant.encode()
    return found


def parts(data: bytes) -> tuple[dict[str, str], bytes]:
    """The headers and the body of a wire file."""
    head, _, body = data.partition(b"\n\n")
    text = head.decode("utf-8", "surrogateescape")
    pairs = (line.partition(": ") for line in text.split("\n"))
    return {name: value for name, _, value in pairs}, body


def payload(data: bytes) -> object:
    """The first byte chooses the type, the rest is its JSON; what was taken can be given again."""
    name, version = TYPES[data[0] % len(TYPES)] if data else TYPES[0]
    found = APP.schema.decode_strict(name, version, data[1:])
    again = APP.schema.of(type(found)).to_bytes(found)
    if APP.schema.of(type(found)).decode(again) != found:
        raise AssertionError("what was taken changed when it was given again")
    return found


def strict(data: bytes) -> object:
    """Any JSON; what passes is the same for every reader."""
    value = check_strict(data)
    if json.loads(json.dumps(value)) != value:
        raise AssertionError("what was taken changed when it was given again")
    return value


def command(data: bytes) -> object:
    """What `headwater command send` is given."""
    return read_command(APP, "Place", data)


def repair(data: bytes) -> object:
    """A request to publish again; what is one can be answered from any store."""
    request = read_request(data)
    if request is not None:
        request.stream.encode()
        service_of(request.stream)
        if not -INTEGER <= request.after < INTEGER:
            raise AssertionError(f"no store can be asked for what is after {request.after}")
    return request


def url(data: bytes) -> object:
    """A URL of a store or a channel."""
    text = data.decode("utf-8", "surrogateescape")
    redact(text)
    scheme_of(text)
    if not text.startswith("sqlite:"):
        _elsewhere(text, data)
        return None
    database = SqliteDatabase.from_url(text.partition("?")[0], CLOCK)
    os.fsencode(database.file.path)
    channel = SqliteChannel.from_url(text, CLOCK)
    if channel.options.retention * 1_000_000 >= INTEGER:
        raise AssertionError("a time before the beginning of time is asked for")
    return channel


def _elsewhere(text: str, data: bytes) -> None:
    """A URL that is not SQLite's: all adapters say so, or take it."""
    adapters: list[Callable[[], object]] = [
        lambda: SqliteDatabase.from_url(text, CLOCK),
        lambda: SqliteChannel.from_url(text, CLOCK),
    ]
    if not text.startswith("memory://") or text == "memory://":  # a name stays in memory for ever
        adapters += [lambda: MemoryDatabase.from_url(text, CLOCK), lambda: MemoryChannel.from_url(text, CLOCK)]
    if sum(data) % SELDOM == 0:  # these look through all that is installed
        adapters += [lambda: open_database(text, CLOCK), lambda: open_channel(text, CLOCK)]
    for adapter in adapters:
        with suppress(ConfigurationError):
            adapter()


def project(data: bytes) -> object:
    """A pyproject.toml, and a file that an environment variable names."""
    SCRATCH.write_bytes(data)
    _read_setting({"HEADWATER_STORE_FILE": str(SCRATCH)})
    _read_setting({"HEADWATER_STORE_FILE": data[:40].decode("utf-8", "surrogateescape")})
    return _project(SCRATCH)


def _read_setting(environment: dict[str, str]) -> None:
    with suppress(ConfigurationError):
        _from_environment(environment, "HEADWATER_STORE")


def lines(data: bytes) -> object:
    """An orders file of the shop."""
    orders = list(_orders(iter(data.splitlines(keepends=True)), "orders.txt", None))
    if any(order.cents < 0 or order.cds < 1 for order in orders):
        raise AssertionError("an order of nothing")
    return orders


def _scratch() -> Path:
    place = "/dev/shm" if Path("/dev/shm").is_dir() else tempfile.gettempdir()
    return Path(place) / f"headwater-fuzz-{os.getpid()}"


SCRATCH = _scratch()

CHOSEN: tuple[tuple[Callable[[bytes], Any], tuple[type[Exception], ...], int], ...] = (
    (wire, (SchemaError,), 6),
    (payload, (SchemaError,), 8),
    (strict, (SchemaError,), 4),
    (command, (SchemaError, NotFound), 4),
    (repair, (), 3),
    (url, (ConfigurationError,), 4),
    (project, (ConfigurationError,), 1),
    (lines, (MalformedLine,), 4),
)


def targets() -> list[Target]:
    """All decoders with their corpora."""
    found = []
    for read, allowed, weight in CHOSEN:
        files = sorted((CORPUS / read.__name__).iterdir())
        found.append(Target(read.__name__, read, allowed, weight, [file.read_bytes() for file in files]))
    return found
