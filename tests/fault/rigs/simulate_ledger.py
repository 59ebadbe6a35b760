"""The books of a simulated universe, kept from its logs by somebody who knows nothing of the flows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from headwater.adapters.memory import MemoryFile
from headwater.adapters.memory.writing import SAGAS, TIMERS
from headwater.errors import Rejected
from headwater.message import Recorded
from headwater.store import Committed
from tests.fault.rigs.simulate_safety import Safety, Violated
from tests.fault.rigs.simulate_world import CUSTOMERS, Fund, Place, Take


class Ledger:
    """Reads each message once, as it is logged, and complains at once; `open_ends` tells in the end what is not settled."""

    def __init__(
        self,
        files: Mapping[str, MemoryFile],
        safeties: Mapping[str, Safety],
        sent: Mapping[str, int],
        violated: Violated,
    ) -> None:
        self._files = files
        self._sent = sent
        self._safeties = safeties
        self._violated = violated
        self.placed: dict[str, str] = {}
        self.finished: dict[str, str] = {}
        self.charged: dict[str, list[str]] = {}
        self.spent: Counter[str] = Counter()
        self.balances: dict[str, list[int]] = {customer: [0] for customer in CUSTOMERS}
        self.heard: list[str] = []
        self.moved: list[str] = []
        self.mailed: dict[str, int] = {}
        self.overdue: set[str] = set()
        self._read: dict[str, Callable[[Any], None]] = {
            "orders.Placed": self._place,
            "orders.Finished": self._finish,
            "orders.Overdue": self._late,
            "bank.Funded": lambda one: self._move(one, "Funded", one["cents"]),
            "bank.Taken": lambda one: self._move(one, "Taken", -one["cents"]),
            "bank.Charged": self._charge,
            "stats.Heard": lambda one: self._once(one["what"], self.heard, "heard"),
            "stats.Mailed": self._mail,
            "headwater.Refused": self._refuse,
        }

    # --- at each step ---

    def recorded(self, one: Recorded) -> None:
        """A message was logged."""
        read = self._read.get(one.type)
        if read is not None:
            read(msgspec.json.decode(one.data))

    def answered(self, service: str, command: Place | Fund | Take, answer: Any, asked: int) -> None:
        """A caller was answered, whose customer had `asked` balances when he asked: the log must say the same."""
        if isinstance(answer, Rejected):
            if not (isinstance(command, Take) and self._may_refuse(command, asked)):
                self._violated(f"{command} was refused: {answer.reason}")
        elif isinstance(answer, Committed):
            log = self._files[service].log
            found = log[answer.position - 1] if answer.position <= len(log) else None
            event = msgspec.json.decode(found.data) if found is not None else {}
            if (
                found is None
                or found.version != answer.version
                or any(event.get(name) != value for name, value in msgspec.structs.asdict(command).items())
            ):
                self._violated(f"{command} was acknowledged as {answer}, and there is {event}")

    def _may_refuse(self, command: Take, asked: int) -> bool:
        """Whether the money was short at some time since a caller asked, and nothing was taken for him."""
        short = min(self.balances[command.customer][asked - 1 :]) < command.cents
        return short and f"Taken {command.number}" not in self.moved

    def _once(self, one: str, known: list[str], what: str) -> None:
        if one in known:
            self._violated(f"{one} was {what} twice")
        known.append(one)

    def _place(self, one: dict[str, Any]) -> None:
        if one["order"] in self.placed:
            self._violated(f"{one['order']} was placed twice")
        self.placed[one["order"]] = one["customer"]

    def _finish(self, one: dict[str, Any]) -> None:
        order, how = one["order"], one["how"]
        if order in self.finished or order not in self.placed:
            self._violated(f"{order} was finished as {how} after {self.finished.get(order, 'nothing')}")
        if (how == "late" and order not in self.overdue) or (how == "refused" and order in self.charged_orders()):
            self._violated(f"{order} was finished as {how}, which it was not")
        self.finished[order] = how

    def _late(self, one: dict[str, Any]) -> None:
        if one["order"] in self.overdue:
            self._violated(f"the timer of {one['order']} fired twice")
        self.overdue.add(one["order"])

    def _move(self, one: dict[str, Any], what: str, cents: int) -> None:
        self._once(f"{what} {one['number']}", self.moved, "booked")
        self._balance(one["customer"], cents)

    def _charge(self, one: dict[str, Any]) -> None:
        customer = one["customer"]
        self._once(one["order"], self.charged.setdefault(customer, []), "charged")
        self.spent[customer] += one["cents"]
        if self._balance(customer, -one["cents"]) != one["left"]:
            self._violated(f"{customer} has {self.balances[customer][-1]}, and the bank says {one['left']}")

    def _mail(self, one: dict[str, Any]) -> None:
        if one["order"] in self.mailed or one["letter"] not in self._sent.values():
            self._violated(f"{one['order']} was mailed as letter {one['letter']}, and before as {self.mailed}")
        self.mailed[one["order"]] = one["letter"]

    def _balance(self, customer: str, cents: int) -> int:
        balance = self.balances[customer][-1] + cents
        self.balances[customer].append(balance)
        if balance < 0:
            self._violated(f"{customer} has {balance}")
        return balance

    def _refuse(self, one: dict[str, Any]) -> None:
        if one["type"] != "bank.Charge":
            self._violated(f"{one['type']} of {one['stream']} was refused: {one['reason']}")

    def charged_orders(self) -> set[str]:
        """The orders that were paid for."""
        return {order for orders in self.charged.values() for order in orders}

    # --- in the end ---

    def open_ends(self) -> list[str]:
        """What is not settled, or not as the logs say."""
        found = [f"{service} {one}" for service in self._files for one in self._left(service)]
        if found:
            return found
        found = [f"{service}: {one}" for service in self._files for one in self._not_taken(service)]
        paid = {order for order, how in self.finished.items() if how in ("paid", "late")}
        if set(self.finished) != set(self.placed):
            found.append(f"not finished: {sorted(set(self.placed) - set(self.finished))}")
        elif paid != self.charged_orders():
            found.append(f"paid or charged, not both: {sorted(paid ^ self.charged_orders())}")
        wanted = {*self.finished, *self.moved}
        if set(self.heard) != wanted:
            found.append(f"not heard: {sorted(wanted - set(self.heard))}")
        if set(self.mailed) != set(self.finished) or sorted(self.mailed.values()) != sorted(self._sent.values()):
            found.append(f"mailed is {self.mailed}, and sent is {self._sent}")
        return [*found, *self._rows()]

    def _left(self, service: str) -> list[str]:
        file = self._files[service]
        held = [
            row
            for name, rows in file.tables.items()
            if isinstance(name, tuple) and name[0] == "held"
            for row in rows.values()
        ]
        found = [f"holds {row.consumer} {row.key}@{row.message.version} ({row.reason}) {row.cause}" for row in held]
        found += [f"has a timer {key}" for key in file.table(TIMERS)]
        found += [f"has a saga that goes on: {key}" for key, row in file.table(SAGAS).items() if not row.ended]
        return found

    def _not_taken(self, service: str) -> list[str]:
        file, safety = self._files[service], self._safeties[service]
        found = []
        for consumer in safety.plans:
            for other in self._files.values():
                for one in other.log:
                    wanted = safety.wants(consumer, one, logged=other is file)
                    if wanted and one.version not in safety.done[consumer, one.stream]:
                        found.append(f"{consumer} has not taken {one.stream}@{one.version}")
        return found

    def _rows(self) -> list[str]:
        """Where the read models differ from the logs."""
        states = dict(self._files["orders"].table(("rows", "state")).values())
        found = []
        if states != {**dict.fromkeys(self.placed, "placed"), **self.finished}:
            found.append(f"the states are {states}")
        rows = self._files["stats"].table(("rows", "spent")).values()
        spent = {customer: (cents, msgspec.json.decode(orders)) for customer, cents, orders in rows}
        if spent != {one: (self.spent[one], orders) for one, orders in self.charged.items()}:
            found.append(f"the spent are {spent}")
        return found
