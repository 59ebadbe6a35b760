"""Commands that come from other services or from our own consumers: decided in batches, refusals sent back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headwater.consumer.arrival import Arrival, Outcome, Waiting
from headwater.database import Transaction
from headwater.errors import Rejected
from headwater.handling import Handling
from headwater.message import Recorded, Refused, caused_by, stream_key, stream_of
from headwater.outbox import Appends, destination, service_of


class CommandWorker:
    """Decides the commands addressed to this service."""

    kind = "commands"
    transactional = False
    types: frozenset[str] = frozenset()

    def __init__(self, name: str, service: str, handling: Handling) -> None:
        self.name = name
        self.service = service
        self.handling = handling
        self._touched: list[str] = []

    def wants(self, message: Recorded) -> bool:
        """Every command to this service, so that an unknown one shows as a dead letter."""
        return message.kind == "command" and destination(message.stream) == self.service

    async def run(self, arrivals: Sequence[Arrival], transaction: Transaction | None) -> Outcome:
        """Decide the commands in order, on aggregates that are read all at once."""
        outcome = Outcome()
        commands = [self._read(arrival) for arrival in arrivals]
        targets = [one for one in commands if not isinstance(one, Exception)]
        self._touched = [stream for stream, _ in targets]
        await self.handling.load(targets)
        appends = Appends()
        failed: set[str] = set()
        for index, (arrival, command) in enumerate(zip(arrivals, commands, strict=True)):
            if arrival.message.key in failed:
                outcome.behind.add(index)
                continue
            try:
                self._decide(arrival, command, appends)
            except Exception as error:  # noqa: BLE001 - kept with the message as its cause
                outcome.failures[index] = error
                failed.add(arrival.message.key)
        outcome.appends = appends.all()
        return outcome

    def _read(self, arrival: Arrival) -> tuple[str, Any] | Exception:
        try:
            command = arrival.payload(self.handling.schema)
            return self.handling.stream(command, arrival.metadata.tenant), command
        except Exception as error:  # noqa: BLE001 - raised again when it is this command's turn
            return error

    def _decide(self, arrival: Arrival, command: tuple[str, Any] | Exception, appends: Appends) -> None:
        """Decide one command. A refusal too stands only while its stream is as it was decided on."""
        meta = caused_by(arrival.message, arrival.metadata)
        try:
            if isinstance(command, Exception):
                raise command
            stream = command[0]
            version = self.handling.version(stream)
            if version is None:
                raise Waiting(f"{stream} must be read again, since a command before this one broke it")
            appends.expect(stream, version)
            proposal = self.handling.propose(*command, meta)
        except Rejected as refusal:
            self._refuse(arrival, refusal, meta, appends)
        else:
            for draft in proposal.drafts:
                appends.add(proposal.stream, draft)

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
