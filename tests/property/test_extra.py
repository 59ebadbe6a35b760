from __future__ import annotations

import importlib
import sys
from unittest import mock

import pytest

from headwater.errors import MissingExtra

PROPERTIES = "headwater.testing.contracts.properties"


def test_what_is_missing_is_told_with_the_extra_that_brings_it() -> None:
    without = {name: module for name, module in sys.modules.items() if not name.startswith(PROPERTIES)}
    found = pytest.raises(MissingExtra, match=r"hypothesis.*headwater\[testing\]")
    with mock.patch.dict(sys.modules, {**without, "hypothesis": None}, clear=True), found:
        importlib.import_module(PROPERTIES)
