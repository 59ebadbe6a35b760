"""The promises of a `Channel`: subclass `ChannelContract` with the two hooks, and run it with pytest.

    class TestMyChannel(ChannelContract):
        async def make(self, tmp_path, clock): ...      # without messages, opened
        async def reopen(self, channel): ...            # a new handle of the same data; the old one may be open

Each test runs in an event loop of its own, over a fresh channel.
"""

# ruff: noqa: E402 - pytest must know the modules before they are imported, to say what an assertion saw

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in ("delivering", "scene", "settling", "sharing")))

from headwater.testing.contracts.channel.delivering import Delivering
from headwater.testing.contracts.channel.settling import Settling
from headwater.testing.contracts.channel.sharing import Sharing

__all__ = ["ChannelContract"]


class ChannelContract(Delivering, Settling, Sharing):
    """All promises of a channel."""
