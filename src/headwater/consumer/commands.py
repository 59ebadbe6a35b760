"""Commands that come from other services or from our own consumers: decided in batches, refusals sent back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headwater.consumer.arrival import Arrival, Outcome
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
        commands = [self._read(index, arrival, outcome) for index, arrival in enumerate(arrivals)]
        targets = [target for target in commands if target is not None]
        self._touched = [stream for stream, _ in targets]
        await self.handling.load(targets)
        appends = Appends()
        failed = {arrivals[index].message.key for index in outcome.failures}
        for index, (arrival, target) in enumerate(zip(arrivals, commands, strict=True)):
            if arrival.message.key in failed:
                if index not in outcome.failures:
                    outcome.behind.add(index)
            elif target is not None:
                self._decide(index, arrival, target, appends, outcome)
                if index in outcome.failures:
                    failed.add(arrival.message.key)
        outcome.appends = appends.all()
        return outcome

    def _read(self, index: int, arrival: Arrival, outcome: Outcome) -> tuple[str, Any] | None:
        try:
            command = arrival.payload(self.handling.schema)
            return self.handling.stream(command, arrival.metadata.tenant), command
        except Exception as error:  # noqa: BLE001 - kept with the message as its cause
            outcome.failures[index] = error
            return None

    def _decide(
        self, index: int, arrival: Arrival, target: tuple[str, Any], appends: Appends, outcome: Outcome
    ) -> None:
        meta = caused_by(arrival.message, arrival.metadata)
        try:
            proposal = self.handling.propose(*target, meta)
        except Rejected as refusal:
            self._refuse(arrival, refusal, meta, appends)
        except Exception as error:  # noqa: BLE001 - kept with the message as its cause
            outcome.failures[index] = error
        else:
            appends.expect(proposal.stream, proposal.expect)
            for draft in proposal.drafts:
                appends.add(proposal.stream, draft)

    def _refuse(self, arrival: Arrival, refusal: Rejected, meta: bytes, appends: Appends) -> None:
        message = arrival.message
        reply = Refused(message.type, message.id, refusal.reason, message.stream, refusal.details)
        stream = stream_of(
            f"{self.name}>{service_of(message.stream)}", stream_key(message.stream), arrival.metadata.tenant
        )
        appends.add(stream, self.handling.outbox.draft(reply, meta, "reply"))

    def undo(self) -> None:
        """Forget the aggregates that the last batch moved on."""
        for stream in self._touched:
            self.handling.forget(stream)
        self._touched = []
