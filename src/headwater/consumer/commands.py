"""Commands that come from other services or from our own consumers: decided in batches, refusals sent back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headwater.consumer.arrival import Arrival, Outcome, Waiting
from headwater.database import Transaction
from headwater.deciding import Deciding, Sitting
from headwater.errors import Rejected
from headwater.message import Draft, Recorded, Refused, caused_by, stream_key, stream_of
from headwater.outbox import Appends, destination, service_of


class CommandWorker:
    """Decides the commands addressed to this service."""

    kind = "commands"
    transactional = False
    types: frozenset[str] = frozenset()

    def __init__(self, name: str, service: str, deciding: Deciding) -> None:
        self.name = name
        self.service = service
        self.deciding = deciding
        self.handling = deciding.handling
        self._touched: list[str] = []

    def wants(self, message: Recorded) -> bool:
        """Every command to this service, so that an unknown one shows as a dead letter."""
        return message.kind == "command" and destination(message.stream) == self.service

    async def run(self, arrivals: Sequence[Arrival], transaction: Transaction | None) -> Outcome:
        """Decide the commands in order, on aggregates and over boundaries that are read before."""
        outcome = Outcome()
        commands = [self._read(arrival) for arrival in arrivals]
        found = [one for one in commands if not isinstance(one, Exception)]
        targets = [one for one in found if type(one[1]) not in self.deciding.boundaries]
        self._touched = [stream for stream, _ in targets]
        await self.handling.load(targets)
        sitting = Sitting(self.deciding)
        await sitting.load(command for _, command in found if type(command) in self.deciding.boundaries)
        appends = Appends()
        failed: set[str] = set()
        for index, (arrival, command) in enumerate(zip(arrivals, commands, strict=True)):
            if arrival.message.key in failed:
                outcome.behind.add(index)
                continue
            try:
                self._decide(arrival, command, appends, sitting)
            except Exception as error:  # noqa: BLE001 - kept with the message as its cause
                outcome.failures[index] = error
                failed.add(arrival.message.key)
        outcome.appends, outcome.conditions = appends.all(), sitting.conditions
        return outcome

    def _read(self, arrival: Arrival) -> tuple[str, Any] | Exception:
        try:
            command = arrival.payload(self.handling.schema)
            return self.deciding.stream(command, arrival.metadata.tenant), command
        except Exception as error:  # noqa: BLE001 - raised again when it is this command's turn
            return error

    def _decide(
        self, arrival: Arrival, command: tuple[str, Any] | Exception, appends: Appends, sitting: Sitting
    ) -> None:
        """Decide one command. A refusal too stands only while what it was decided on is as it was."""
        meta = caused_by(arrival.message, arrival.metadata)
        try:
            if isinstance(command, Exception):
                raise command
            if type(command[1]) in self.deciding.boundaries:
                drafts: Sequence[Draft] = sitting.decide(command[1], meta)
            else:
                drafts = self._decide_on_aggregate(*command, meta, appends)
                sitting.add(drafts)
        except Rejected as refusal:
            self._refuse(arrival, refusal, meta, appends)
        else:
            for draft in drafts:
                appends.add(command[0], draft)

    def _decide_on_aggregate(self, stream: str, command: Any, meta: bytes, appends: Appends) -> Sequence[Draft]:
        version = self.handling.version(stream)
        if version is None:
            raise Waiting(f"{stream} must be read again, since a command before this one broke it")
        appends.expect(stream, version)
        return self.handling.propose(stream, command, meta).drafts

    def _refuse(self, arrival: Arrival, refusal: Rejected, meta: bytes, appends: Appends) -> None:
        message = arrival.message
        details = msgspec.json.decode(msgspec.json.encode(refusal.details, enc_hook=str))
        reply = Refused(message.type, message.id, refusal.reason, message.stream, details)
        stream = stream_of(
            f"{self.name}>{service_of(message.stream)}", stream_key(message.stream), arrival.metadata.tenant
        )
        appends.add(stream, self.handling.outbox.draft(reply, meta, "reply"))

    def undo(self) -> None:
        """Forget the aggregates that the last batch moved on."""
        for stream in self._touched:
            self.handling.forget(stream)
        self._touched = []
