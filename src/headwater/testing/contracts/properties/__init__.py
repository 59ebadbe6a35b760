"""The promises of adapters against whatever can be done to them: machines that do it by chance, and shrink what fails.

    class TestMyDatabase(DatabaseProperties):
        async def make(self, tmp_path, clock): ...      # fresh, opened
        async def reopen(self, database): ...           # a new handle on the data of one that was closed

    class TestMyChannel(ChannelProperties):
        async def make(self, tmp_path, clock): ...      # without messages, opened
        async def reopen(self, channel): ...            # a new handle of the same data; the old one may be open

They need Hypothesis: `pip install 'headwater[testing]'`. `examples` and `steps` say how much is tried; without a `seed` the
same is tried every time.
"""

# ruff: noqa: E402 - what is missing is told, and pytest must know the modules, before they are imported

from headwater.errors import MissingExtra

try:
    import hypothesis  # noqa: F401 - only to see whether it is there
    import pytest
except ImportError as error:
    raise MissingExtra(
        f"the properties need {error.name}, which is not installed; run: pip install 'headwater[testing]'"
    ) from error

pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in ("channel", "database", "ledger")))

from headwater.testing.contracts.properties.channel import ChannelProperties
from headwater.testing.contracts.properties.database import DatabaseProperties

__all__ = ["ChannelProperties", "DatabaseProperties"]
