"""Bugs of the claim check: messages that go before their bodies are kept, and bodies that nobody checks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from headwater import claims
from headwater.adapters.folder import FolderClaims
from headwater.channel import Publication
from headwater.claims import ClaimCheck, name_of
from headwater.consumer.arrival import Arrival
from headwater.errors import HeadwaterError, SchemaError
from tests.fault.plants.detectors import Suite
from tests.fault.plants.plant import Patch, Promise, planted

SUITE = "tests/flow/test_claims.py::"


@planted(Promise.NOTHING_LOST, Suite(f"{SUITE}test_a_body_is_in_the_folder_before_its_message_is_published"))
def published_before_its_claim_is_left() -> Patch:
    """A message that refers to a claim is published, and then the claim is left."""

    async def early(self: Any, publications: Sequence[Publication], **options: Any) -> dict[int, str]:
        room = self.channel.capabilities.room
        large = [one for one in publications if len(one.body) > room]
        fit = [
            msgspec.structs.replace(
                one, headers={**one.headers, "dataref": (self.claims.folder / name_of(one.body)).as_uri()}, body=b""
            )
            if one in large
            else one
            for one in publications
        ]
        answer: dict[int, str] = await self.channel.publish(fit, **options)
        for one in large:
            await self.claims.leave(one.body)
        return answer

    return mock.patch.object(ClaimCheck, "publish", early)


@planted(
    Promise.DURABLE,
    Suite(f"{SUITE}test_a_file_is_whole_and_on_disk_before_its_name_stands_there_and_then_its_name"),
)
def claim_not_flushed() -> Patch:
    """The file of a claim gets its name while its bytes may be in memory only."""

    def hastily(self: Any, path: Path, body: bytes) -> None:
        new = self.folder / ".new"
        new.write_bytes(body)
        new.replace(path)

    return mock.patch.object(FolderClaims, "_write", hastily)


@planted(
    Promise.NOTHING_LOST,
    Suite(f"{SUITE}test_a_claim_that_is_not_what_was_left_is_not_handled_and_mended_by_publishing_again"),
)
def claim_not_checked() -> Patch:
    """Whatever lies under the name of a claim is taken for the body."""
    usual = claims.redeem

    async def blind(place: Any, reference: str) -> bytes:
        with mock.patch.object(claims, "name_of", lambda _: reference.rpartition("/")[2]):
            return await usual(place, reference)

    return mock.patch("headwater.consumer.arrival.redeem", blind)


@planted(
    Promise.NOTHING_LOST,
    Suite(f"{SUITE}test_a_claim_that_is_missing_holds_its_key_and_others_flow_until_it_is_published_again"),
)
def missing_claim_is_final() -> Patch:
    """A claim that is not there makes a dead letter at once, as a message that is malformed does."""
    redeem = Arrival.redeem

    async def once(self: Any, place: Any) -> None:
        await redeem(self, place)
        if isinstance(self._body, HeadwaterError):
            self._body = SchemaError(str(self._body))

    return mock.patch.object(Arrival, "redeem", once)
