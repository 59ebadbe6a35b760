"""`fuzz`: valid inputs, mutated by seed, at every decoder: only documented errors, no hang, no growth.

One seed is a batch of inputs; a few of its messages go through a channel to real consumers as well.
"""

from __future__ import annotations

import random
import resource
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tests.fault.rigs.fuzz_flow import deliver
from tests.fault.rigs.fuzz_targets import SCRATCH, Target, targets
from tests.fault.rigs.trial import TrialResult

COUNT = 1_000_000
BATCH = 20_000
DELIVERED = 60
HANG = 1.0
TICKS = 4
GROWTH = 256 << 20
LONGEST = 64 << 10
SHOWN = 300

TOKENS = (
    *(b"NaN", b"-1", b"9" * 20, b"1e999", b"-0.0", b"null", b"true", b"\0", b"\\ud800", b"\xed\xa0\x80", b"\xff\xfe"),
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r\n", b"\n\n", b" ", b"\t", b"/", b">", b"://", b"?"),
    *(b"#", b"%00", b"%2F", b"%FF", b"@", b"=", b"&", b"=inf", b"=nan", b"=-1", b"..", b"\xef\xbb\xbf", b"\xc2\xb2"),
    *(b"\xd9\xa3", b"1_000", b"[" * 70, b'{"a":' * 70, b"1" * 5_000, b"2026-02-30", b"0001-01-01T00:00:00+23:59"),
    *(b"event", b"command", b"headwater.Refused", b"previous: ", b"streamversion: ", b'"order_id":', b'"after":'),
)


class Hang(BaseException):
    """An input takes too long; no decoder may catch it."""


def one_trial(seed: int) -> TrialResult:
    """Try one batch of inputs."""
    return batch(seed, BATCH, DELIVERED)


def batch(seed: int, count: int, delivered: int) -> TrialResult:
    """Try so many inputs at the decoders, and deliver some to consumers."""
    chance = random.Random(seed)
    chosen = [target for target in targets() for _ in range(target.weight)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kinds: dict[str, str] = {}
    with _watched() as begin:
        for number in range(count):
            target = chosen[int(chance.random() * len(chosen))]
            begin(number)
            data = mutated(chance, target.seeds)
            if found := attempt(target, data):
                kinds.setdefault(*found)
    SCRATCH.unlink(missing_ok=True)
    violations = [f"{kind}: {words}" for kind, words in kinds.items()]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if grown > GROWTH:
        violations.append(f"memory grew by {grown >> 20} MiB")
    wire = next(target for target in targets() if target.name == "wire")
    violations += deliver([mutated(chance, wire.seeds) for _ in range(delivered)])
    return TrialResult(True, violations, count + delivered, {"grown MiB": grown >> 20})


def attempt(target: Target, data: bytes) -> tuple[str, str] | None:
    """What is wrong with how a decoder took an input: which decoder, error and place, and the rest in words."""
    try:
        target.read(data)
    except target.allowed as error:
        return None if str(error) else (f"{target.name}, {type(error).__name__}", f"says nothing for {data[:SHOWN]!r}")
    except (Exception, Hang) as error:  # noqa: BLE001 - this is what is looked for
        last = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{target.name}, {type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
        return kind, f"{str(error)[:SHOWN]} for {data[:SHOWN]!r}"
    return None


@contextmanager
def _watched() -> Iterator[Callable[[int], None]]:
    """Raise `Hang` in an input that takes more than a second of processor time; tell it when one begins."""
    current, seen, since = [-1], [-1], [0]

    def tick(number: int, frame: FrameType | None) -> None:
        since[0] = since[0] + 1 if seen[0] == current[0] else 0
        seen[0] = current[0]
        if since[0] > TICKS:
            raise Hang(f"more than {HANG} s")

    before = signal.signal(signal.SIGPROF, tick)
    signal.setitimer(signal.ITIMER_PROF, HANG / TICKS, HANG / TICKS)
    try:
        yield lambda number: current.__setitem__(0, number)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# --- mutation ---


def mutated(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds, changed in one to four places."""
    data = seeds[int(chance.random() * len(seeds))]
    for _ in range(1 + int(chance.random() * 4)):
        change = CHANGES[int(chance.random() * len(CHANGES))]
        data = change(chance, data, seeds)
    return data[:LONGEST]


def _flip(chance: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at = int(chance.random() * (len(data) + 1))
    return data[:at] + bytes((int(chance.random() * 256),)) + data[at + 1 :]


def _insert(chance: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at = int(chance.random() * (len(data) + 1))
    return data[:at] + TOKENS[int(chance.random() * len(TOKENS))] + data[at:]


def _replace(chance: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at = int(chance.random() * (len(data) + 1))
    return data[:at] + TOKENS[int(chance.random() * len(TOKENS))] + data[at + 1 + int(chance.random() * 12) :]


def _delete(chance: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at = int(chance.random() * (len(data) + 1))
    return data[:at] + data[at + 1 + int(chance.random() * 20) :]


def _double(chance: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at = int(chance.random() * (len(data) + 1))
    upto = at + int(chance.random() * 60)
    return data[:upto] + data[at:]


def _splice(chance: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    other = seeds[int(chance.random() * len(seeds))]
    return data[: int(chance.random() * (len(data) + 1))] + other[int(chance.random() * (len(other) + 1)) :]


def _value(chance: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Put another value behind a colon."""
    colons = data.count(b":")
    if not colons:
        return data
    at = 0
    for _ in range(1 + int(chance.random() * colons)):
        at = data.index(b":", at) + 1
    end = min(
        (found for found in (data.find(mark, at) for mark in (b",", b"}", b"\n")) if found >= 0), default=len(data)
    )
    return data[:at] + b" " + TOKENS[int(chance.random() * len(TOKENS))] + data[end:]


CHANGES = (_flip, _insert, _replace, _delete, _double, _splice, _value)
