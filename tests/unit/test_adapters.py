"""Adapters are found by the scheme of a URL; one whose library is not installed says what to install."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import pytest

from headwater.app import open_channel, open_database
from headwater.clock import SystemClock
from headwater.errors import ConfigurationError, MissingExtra

CLOCK = SystemClock()


@pytest.mark.parametrize(
    ("url", "library", "extra"),
    [
        ("kafka://127.0.0.1:9092", "confluent_kafka", "kafka"),
        ("rabbitmq://guest:guest@127.0.0.1:5672/", "pamqp", "rabbitmq"),
        ("aws://?region=eu-west-1", "aiobotocore", "aws"),
        ("postgresql://127.0.0.1/x", "psycopg", "postgres"),
    ],
)
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, url: str, library: str, extra: str
) -> None:
    gone = [name for name in sys.modules if name.startswith((library, f"headwater.adapters.{extra}"))]
    for name in gone:
        monkeypatch.delitem(sys.modules, name)
    usual = builtins.__import__

    def importing(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == library:
            raise ModuleNotFoundError(f"No module named {library!r}", name=library)
        return usual(name, *rest)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(
        MissingExtra, match=rf"{library}, which is not installed; run: pip install 'headwater\[{extra}\]'"
    ):
        open_channel(url, CLOCK)


def test_a_scheme_that_nobody_has_is_told_with_those_there_are() -> None:
    with pytest.raises(
        ConfigurationError, match=r"no channel has the scheme 'nosuch'; known: .*kafka.*rabbitmq.*sqlite"
    ):
        open_channel("nosuch://x", CLOCK)
    with pytest.raises(ConfigurationError, match="no store has the scheme"):
        open_database("nosuch://x", CLOCK)
