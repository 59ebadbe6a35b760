"""Streams are read for many at once, and nobody waits in vain."""

from __future__ import annotations

import asyncio
from typing import Any

from headwater.adapters.postgres.pasts import Pasts


class Prompt:
    """A pool that answers before anything else can happen, or does not find what it is asked for."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def rows(self, *_: Any) -> list[list[Any]]:
        if self.error is not None:
            raise self.error
        return [[]]


async def read_again_and_again(pasts: Pasts) -> int:
    failures = 0
    for _ in range(3):
        try:
            assert await pasts.read({"shop.Order/1": 0}) == {}
        except ConnectionError:
            failures += 1
    return failures


def test_who_reads_again_at_once_is_not_forgotten_by_those_that_have_just_ended() -> None:
    async def main() -> None:
        for error, failures in ((None, 0), (ConnectionError(), 3)):
            pasts = Pasts(Prompt(error))  # type: ignore[arg-type]
            async with asyncio.timeout(5):
                assert await asyncio.gather(*(read_again_and_again(pasts) for _ in range(3))) == [failures] * 3

    asyncio.run(main())
