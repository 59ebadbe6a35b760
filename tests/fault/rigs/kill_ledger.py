"""The ledger of the `kill` rig: it looks at the data of a world from outside, with SQL of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.fault.rigs.ground import ground

SAFES = 5
PAID = "type = 'bank.Paid'"
MOVED = "type = 'bank.Moved'"
REFUNDED = "type = 'bank.Refunded'"
BOOKED = "type = 'bank.Booked'"
FILLED = "type = 'vault.Filled'"
REFUSED = "kind = 'reply'"
REMINDER = "kind = 'timer' AND type = 'bank.Reminder'"
LATE = "kind = 'timer' AND type = 'bank.Late'"
ACCOUNT = f"({PAID} OR {MOVED} OR {REFUNDED})"

CONSUMERS = (
    ("bank", "bank.remind", (("bank", f"({PAID} OR {REMINDER})"),)),
    ("bank", "bank.statement", (("bank", ACCOUNT),)),
    ("bank", "bank.commands", (("bank", "kind = 'command' AND stream LIKE '%>bank/%'"),)),
    (
        "bank",
        "bank.transfer",
        (("bank", f"({MOVED} OR {REFUNDED} OR {LATE})"), ("vault", f"({FILLED} OR {REFUSED})")),
    ),
    ("vault", "vault.commands", (("bank", "kind = 'command' AND stream LIKE '%>vault/%'"),)),
    ("vault", "vault.notify", (("vault", FILLED),)),
    ("vault", "vault.slip", (("vault", FILLED),)),
    ("vault", "vault.seen", (("bank", f"({PAID} OR {MOVED})"),)),
    ("vault", "vault.statement", (("bank", ACCOUNT),)),
)
"""Whose journal, which consumer, and what it takes of whose log."""


class Ledger:
    """The data of a world."""

    def __init__(self, folder: Path) -> None:
        self.ground = ground(folder)

    def rows(self, service: str, sql: str) -> list[tuple[Any, ...]]:
        """Ask a database."""
        return self.ground.rows(service, sql)

    def count(self, service: str, what: str) -> int:
        """How many rows there are of something."""
        return int(self.rows(service, f"SELECT count(*) FROM {what}")[0][0])

    def numbers(self, service: str, where: str) -> list[int]:
        """The payments that messages of a log are about, in order."""
        sql = f"SELECT data ->> 'number' FROM events WHERE {where} ORDER BY position"
        return [number for (number,) in self.rows(service, sql)]

    def unsettled(self) -> list[str]:
        """What is still to come, in words."""
        found = [f"{name}: {left} to come" for name, left in self._behind() if left]
        for service in ("bank", "vault"):
            held = self.rows(service, "SELECT consumer, reason, cause, count(*) FROM held GROUP BY 1, 2, 3")
            found += [f"{service} still holds {row}" for row in held]
        if timers := self.count("bank", "timers"):
            found.append(f"{timers} timers wait")
        if sagas := self.count("bank", "sagas WHERE NOT ended"):
            found.append(f"{sagas} transfers are open")
        return found

    def _behind(self) -> Iterable[tuple[str, int]]:
        for service, name, sources in CONSUMERS:
            wanted = sum(self.count(producer, f"events WHERE {where}") for producer, where in sources)
            yield name, wanted - self.count(service, f"journal WHERE consumer = '{name}'")

    def violations(self, committed: set[int], refused: set[int], outside: list[int]) -> list[str]:
        """What is wrong, in words, once all has come to rest; `outside` are the effects that have happened there."""
        paid, moved = self.numbers("bank", PAID), self.numbers("bank", MOVED)
        booked = self.numbers("bank", BOOKED)
        filled, refunded = self.numbers("vault", FILLED), self.numbers("bank", REFUNDED)
        return [
            *lines("acknowledged and lost", committed - set(paid + moved + booked)),
            *lines("refused and done", refused & set(paid + moved + booked)),
            *doubled("the payments", paid + moved + booked),
            *self._bookings(),
            *differing("moved, and filled or refunded", moved, filled + refunded),
            *differing("paid and reminded of", paid, self.numbers("bank", REMINDER)),
            *differing("moved and late", moved, self.numbers("bank", LATE)),
            *differing("filled and told outside", filled, outside),
            *differing("filled and on a slip", filled, [one for (one,) in self.rows("vault", "SELECT * FROM slips")]),
            *self._money(),
            *self._read_models(),
            *self._journals(),
            *self.unsettled(),
            *self._files(),
        ]

    def _money(self) -> list[str]:
        cents = {
            name: self.rows(
                service, f"SELECT coalesce(sum(CAST(data ->> 'cents' AS INTEGER)), 0) FROM events WHERE {where}"
            )[0][0]
            for service, name, where in (
                ("bank", "paid", PAID),
                ("bank", "moved", MOVED),
                ("bank", "refunded", REFUNDED),
                ("vault", "filled", FILLED),
            )
        }
        [(balances,)] = self.rows("bank", "SELECT coalesce(sum(cents), 0) FROM balance")
        there = balances + cents["filled"]
        return [f"{cents['paid']} cents were paid in and {there} are there: {cents}"] if there != cents["paid"] else []

    def _bookings(self) -> list[str]:
        """No room and no guest has more safes than there are."""
        return [
            f"{count} safes are booked by the {of} {name}"
            for of in ("room", "guest")
            for name, count in self.rows(
                "bank", f"SELECT data ->> '{of}', count(*) FROM events WHERE {BOOKED} GROUP BY 1"
            )
            if count > SAFES
        ]

    def _read_models(self) -> list[str]:
        sign = f"CASE WHEN {MOVED} THEN -1 ELSE 1 END"
        sql = f"""SELECT data ->> 'account', count(*), sum({sign} * CAST(data ->> 'cents' AS INTEGER))
        FROM events WHERE {ACCOUNT} GROUP BY 1"""
        wanted = {tuple(row) for row in self.rows("bank", sql)}
        found: list[str] = []
        for service, table in (("bank", "balance"), ("bank", "statement"), ("vault", "statement")):
            there = {tuple(row) for row in self.rows(service, f"SELECT account, count, cents FROM {table}")}
            if wanted != there:
                found.append(f"the read model {table} of the {service} differs: {sorted(wanted ^ there)[:4]}")
        return found

    def _journals(self) -> list[str]:
        """Each message taken once by each consumer, those of a stream in order."""
        found: list[str] = []
        for service, name, sources in CONSUMERS:
            logged = [
                tuple(row)
                for producer, where in sources
                for row in self.rows(producer, f"SELECT stream, version FROM events WHERE {where}")
            ]
            sql = f"SELECT stream, version FROM journal WHERE consumer = '{name}' ORDER BY sequence"
            taken = [tuple(row) for row in self.rows(service, sql)]
            found += differing(f"logged and taken by {name}", logged, taken)
            reached: dict[str, int] = {}
            for stream, version in taken:
                if version < reached.get(stream, 0):
                    found.append(f"{name} took {stream} {version} after {reached[stream]}")
                reached[stream] = version
        return found

    def _files(self) -> list[str]:
        """What the database says, and whether the log has gaps."""
        found = []
        for service in ("bank", "vault"):
            found += [f"{service}: {line}" for line in self.ground.damage(service)]
            sql = "SELECT stream FROM events GROUP BY 1 HAVING min(version) <> 1 OR max(version) <> count(*) LIMIT 3"
            found += [f"{service}: {stream} has a hole" for (stream,) in self.rows(service, sql)]
        return found


def lines(what: str, found: set[Any]) -> list[str]:
    """A line where there is something."""
    return [f"{what}: {sorted(found)[:8]}"] if found else []


def doubled(what: str, found: list[Any]) -> list[str]:
    """A line where something is there more than once."""
    return lines(f"{what} have twice", {one for one, times in Counter(found).items() if times > 1})


def differing(what: str, left: list[Any], right: list[Any]) -> list[str]:
    """Lines where two lists do not have the same, each once."""
    return [
        *lines(f"{what}: not both", set(left) ^ set(right)),
        *doubled(f"{what}: the first", left),
        *doubled(f"{what}: the second", right),
    ]
